"""The networks that are declared and that torchvision has too, and how the two are compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.config.groups.network import Network
from convtrain.models.build import build_network
from convtrain.models.functional import functionalize
from convtrain.network.resolve import resolve_network
from tests.conftest import compose_once

CLASSES = 1000
SHAPE = (3, 64, 64)  # every one of them takes it, and it is quick
NETWORKS = (
    "lenet",
    "alexnet",
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
)
STYLES = ("nn", "functional")
MODES = ("eval", "train")


def declared(name: str) -> Network:
    return compose_once(
        f"network={name}", "data=synthetic", f"data.num_classes={classes(name)}"
    ).network


def shape(name: str) -> tuple[int, ...]:
    """Return the images that a network is compared on."""
    return (1, 28, 28) if name == "lenet" else SHAPE


def classes(name: str) -> int:
    return 10 if name == "lenet" else CLASSES


def known(name: str) -> nn.Module:
    """Return torchvision's network with fresh weights; LeNet-5 is written out here."""
    if name == "lenet":
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )
    extra = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **extra)


def built(name: str, style: Any = "nn") -> nn.Module:
    """Return the declared network, with weights as its ``init`` declares."""
    network = declared(name)
    resolved = resolve_network(network.layers, shape(name), network.blocks)
    return build_network(resolved, style=style, init=network.init)


def in_declared_order(name: str, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's parameters or buffers in the order in which they are declared.

    The orders are the same but for ConvNeXt, whose blocks hold their layer scale before their
    layers, where the declaration has it in the place where it acts: behind them.
    """
    if name != "convnext_tiny":
        return entries
    ordered: dict[str, Tensor] = {}
    waiting: dict[str, Tensor] = {}
    for key, tensor in entries.items():
        owner = next(iter(waiting), "").removesuffix("layer_scale")
        if waiting and not key.startswith(owner):
            ordered.update(waiting)
            waiting = {}
        (waiting if key.endswith("layer_scale") else ordered)[key] = tensor
    return {**ordered, **waiting}


def pairs(
    name: str, theirs: nn.Module, ours: nn.Module
) -> Iterator[tuple[str, Tensor, str, Tensor]]:
    """Yield each parameter and buffer of torchvision's network beside the declared one's."""
    for kind in ("named_parameters", "named_buffers"):
        left = in_declared_order(name, dict(getattr(theirs, kind)()))
        right = dict(getattr(ours, kind)())
        assert len(left) == len(right), (kind, len(left), len(right))
        for (theirs_key, a), (ours_key, b) in zip(left.items(), right.items(), strict=True):
            assert a.shape == b.shape, (theirs_key, ours_key)
            yield theirs_key, a, ours_key, b


def fill(model: nn.Module, seed: int = 0) -> None:
    """Fill parameters and buffers with numbers that show every mistake, and still keep a signal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor).normal_(generator=generator)

    with torch.no_grad():
        for _, parameter in model.named_parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            if parameter.ndim == 1 or fan == 1:
                parameter.copy_(0.5 + 0.1 * normal(parameter))
            else:
                parameter.copy_(normal(parameter) * (2 / fan) ** 0.5)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.1 * normal(buffer))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + normal(buffer).abs())


@dataclass(frozen=True)
class Seen:
    """What one pass computed: scores, gradients by parameter, buffers afterwards."""

    scores: Tensor
    gradients: list[Tensor]
    buffers: list[Tensor]


def one_pass(
    name: str,
    model: nn.Module,
    mode: str,
    order: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> Seen:
    """Run a batch forward and backward, from one random state, and put the buffers back."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, *shape(name), generator=generator)
    labels = torch.randint(0, classes(name), (2,), generator=generator)
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    model.train(mode == "train").zero_grad()
    torch.manual_seed(2)
    scores = model(images)
    F.cross_entropy(scores, labels).backward()
    parameters, buffers = order(dict(model.named_parameters())), order(dict(model.named_buffers()))
    seen = Seen(
        scores.detach(),
        [parameter.grad for parameter in parameters.values() if parameter.grad is not None],
        [buffer.clone() for buffer in buffers.values()],
    )
    assert len(seen.gradients) == len(parameters)
    assert scores.isfinite().all()
    assert scores.std() > 0.1, "too quiet to show a difference"
    assert all(gradient.any() for gradient in seen.gradients)
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            buffer.copy_(before[key])
    model.zero_grad()
    return seen


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference to torchvision; zero means the same bits."""

    scores: float
    gradients: float
    buffers: float

    @property
    def largest(self) -> float:
        return max(self.scores, self.gradients, self.buffers)


def differences(name: str) -> dict[tuple[str, str], Difference]:
    """Compare a declared network with torchvision's, for each style and mode."""
    with torch.device("meta"):  # draws no weights; they are filled below
        theirs, tree = known(name), built(name)
    theirs, tree = theirs.to_empty(device="cpu"), tree.to_empty(device="cpu")
    for buffer in (*theirs.buffers(), *tree.buffers()):
        buffer.zero_()
    fill(theirs)
    with torch.no_grad():
        for _, a, _, b in pairs(name, theirs, tree):
            b.copy_(a)
    expected = {
        mode: one_pass(name, theirs, mode, lambda entries: in_declared_order(name, entries))
        for mode in MODES
    }
    found = {}
    for style, model in (("nn", tree), ("functional", functionalize(tree))):
        for mode in MODES:
            found[style, mode] = _difference(expected[mode], one_pass(name, model, mode))
    return found


def _difference(a: Seen, b: Seen) -> Difference:
    def largest(left: list[Tensor], right: list[Tensor]) -> float:
        differing = [
            (x - y).abs().max().item()
            for x, y in zip(left, right, strict=True)
            if not torch.equal(x, y)
        ]
        return max(differing, default=0.0)

    return Difference(
        largest([a.scores], [b.scores]),
        largest(a.gradients, b.gradients),
        largest(a.buffers, b.buffers),
    )
