"""``trainer.deterministic=true``: what torch refuses is refused first, and all else repeats."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from convtrain import assembly, pipeline
from convtrain.errors import NetworkError
from convtrain.models.determinism import pool_deterministically, refuse_nondeterministic
from tests.conftest import REPOSITORY, compose
from tests.gpu.same import assert_same_weights
from tests.layers.cases import CASES, SAME, Case
from tests.layers.parity import _ready, _tensors

STYLES = ("nn", "functional")
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
DETERMINISTIC = (
    "trainer=gpu", "trainer.deterministic=true", "callbacks.progress_bar=false",
    "trainer.max_epochs=2", "data.limit=640",
)  # fmt: skip


def torch_refuses(kind: type[nn.Module], case: Case) -> bool:
    """Run a layer forward and back on the GPU, as as torch itself tells."""
    torch.manual_seed(0)
    layer = case.make(kind).cuda()
    inputs: list[object] = []
    for make in case.inputs:
        ready = inputs[0] if make is SAME else _on_gpu(_ready(make(torch.float32), [], False))
        inputs.append(ready)
    keywords = {k: _on_gpu(_ready(m(torch.float32), [], False)) for k, m in case.keywords.items()}
    try:
        outputs = list(_tensors(layer(*inputs, **keywords), []))
        back = [tensor for tensor in outputs if tensor.requires_grad]
        torch.autograd.backward(back, [torch.randn_like(tensor) for tensor in back])
    except RuntimeError as error:
        if "deterministic" in str(error):
            return True
        raise
    return False


def _on_gpu(value: object) -> object:
    if hasattr(value, "cuda"):
        return value.cuda()
    return tuple(_on_gpu(each) for each in value) if isinstance(value, tuple) else value


def we_refuse(layer: nn.Module) -> bool:
    try:
        refuse_nondeterministic(layer)
    except NetworkError:
        return True
    return False


def test_the_table_of_layers_is_torchs() -> None:
    """What torch refuses is refused. A version of torch that refuses less shows nothing wrong."""
    pool_deterministically()
    torch.use_deterministic_algorithms(True)
    missed, needless, tried = [], [], 0
    for kind, cases in CASES.items():
        if kind.__module__ == "torch.nn.modules.loss" or issubclass(kind, CONTAINERS):
            continue
        for index, case in enumerate(cases):
            if not case.is_known_to(kind):
                continue
            try:
                theirs = torch_refuses(kind, case)
            except Exception:  # torch has no such kernel, whatever is asked of the order
                continue
            tried, ours = tried + 1, we_refuse(case.make(kind))
            named = f"{kind.__name__}#{index} {dict(case.arguments)}"
            missed += [named] if theirs and not ours else []
            needless += [named] if ours and not theirs else []
    assert tried > 200
    assert not missed, "\n".join(missed)
    assert torch.__version__ > "2.12" or not needless, "\n".join(needless)


def test_adaptive_max_pooling_sends_its_gradient_back_as_torch_does() -> None:
    images, sizes = torch.randn(2, 3, 7, 5, device="cuda"), [(3, 3), (1, 1), (7, 5), (2, 4)]
    found = []
    for override in (False, True):
        if override:
            pool_deterministically()
            torch.use_deterministic_algorithms(True)
        for size in sizes:
            leaf = images.clone().requires_grad_()
            nn.functional.adaptive_max_pool2d(leaf, size).square().sum().backward()
            found.append(leaf.grad)
    for plain, deterministic in zip(found[:4], found[4:], strict=True):
        torch.testing.assert_close(plain, deterministic)


SHAPES = {"lenet": "[1,28,28]", "lstm": "[1,28,28]", "conv2d": "[1,3,3]", "conv2d_ones": "[1,3,3]"}
REFUSED = ("alexnet", "vgg16_bn")  # adaptive average pooling to 6 x 6 and 7 x 7
NETWORKS = sorted(path.stem for path in (REPOSITORY / "configs/network").glob("[!_]*.yaml"))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_shipped_network_does_a_step_or_is_refused_in_a_line(network: str) -> None:
    config = compose(
        "trainer=gpu", "trainer.deterministic=true", f"network={network}", "data=synthetic",
        f"data.shape={SHAPES.get(network, '[3,64,64]')}",
        *(["data.mean=[0.5]", "data.std=[0.25]"] if network in SHAPES else []),
        *(["loss=sum"] if network.startswith("conv2d") else []),
    )  # fmt: skip
    if network in REFUSED:
        with pytest.raises(NetworkError, match=r"is AdaptiveAvgPool2d, which has no deterministic"):
            assembly.make_model(config)
        return
    model = assembly.make_model(config).cuda()
    torch.use_deterministic_algorithms(True)
    model(torch.randn(4, *config.data.shape, device="cuda")).square().mean().backward()


def test_both_styles_give_the_same_bits(tmp_path: Path) -> None:
    results = [
        pipeline.train(compose(*DETERMINISTIC, f"model={style}"), tmp_path / style)
        for style in STYLES
    ]
    assert_same_weights(*(tmp_path / style for style in STYLES))
    for metric in ("train/loss_epoch", "val/loss", "test/loss"):
        assert results[0][metric] == results[1][metric]


KILLED = (
    *DETERMINISTIC, "callbacks.checkpoint.every_n_steps=3", "augment=shift", "recorder=stats",
)  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a run of each style that SIGKILL has ended in its fifteenth batch."""
    runs = {style: tmp_path_factory.mktemp("killed") / style for style in STYLES}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.killed", str(run), "14", *KILLED, f"model={style}"],
            cwd=REPOSITORY,
        )
        for style, run in runs.items()
    ]
    assert [process.wait(120) for process in processes] == [-9, -9]
    return runs


@pytest.mark.parametrize("style", STYLES)
def test_killed_and_resumed_it_ends_with_the_same_bits(
    style: str, killed: dict[str, Path], tmp_path: Path
) -> None:
    config, again = compose(*KILLED, f"model={style}"), killed[style]
    expected = pipeline.train(config, tmp_path)
    assert not (again / "result.json").exists()
    found = pipeline.train(config.model_copy(update={"resume": str(again)}), again)
    for metric in ("train/loss_epoch", "val/loss", "test/loss"):
        assert found[metric] == expected[metric]
    assert_same_weights(tmp_path, again)
