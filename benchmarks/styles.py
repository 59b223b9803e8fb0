"""Compare the two styles: ``python -m benchmarks.styles``.

Each runs a forward and backward pass of the same declared network with the same weights and images.
Rows have milliseconds per pass, and functional / nn pair by pair: the median and the middle half.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.paired import Result, compare, print_table
from convtrain.models.functional import functionalize

BATCH = 64


def rows(rounds: int = 41) -> list[Result]:
    results = []
    for name, shape, calls in (("convnet", (1, 28, 28), 4), ("resnet18", (3, 32, 32), 1)):
        tree = _declared(name, shape)
        explicit = functionalize(tree)
        images, targets = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
        work = [_pass(model, images, targets) for model in (explicit, tree)]
        ratio = compare(work[0], work[1], pairs=rounds, calls=calls).scaled(1000)
        what = f"forward and backward, {name} at {shape}: functional / nn"
        results.append(Result(what, ratio, "ms", 1.02))
    return results


def _declared(name: str, shape: tuple[int, int, int]) -> nn.Module:
    from convtrain.assembly import make_model
    from convtrain.command.configure import configure

    channels = shape[0]
    overrides = [
        f"network={name}", "model=nn", "data=synthetic", f"data.shape={list(shape)}",
        f"data.mean={[0.5] * channels}", f"data.std={[0.5] * channels}",
    ]  # fmt: skip
    return make_model(configure(overrides).config)


def _pass(model: nn.Module, images: torch.Tensor, targets: torch.Tensor):
    def work() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), targets).backward()

    return work


if __name__ == "__main__":
    print_table(rows())
