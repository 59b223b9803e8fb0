"""The recorder changes nothing, and does not wait for the device between two flushes."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convtrain.gradients import load
from convtrain.gradients.record import histograms, measurement
from convtrain.gradients.record.schedule import Plan
from convtrain.gradients.record.store import Store
from tests.conftest import Train, slow_but
from tests.gradients.harness import DEBUG, FULL, NORMS, STATS, Module, fit, squares

STEPS = 20


class Block(nn.Module):
    """Dropout, batch norm, and a residual that is added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        out = self.dropout(self.norm(self.conv(input)))
        out += input
        return self.relu(out)


def train(run: Path, plan: Plan | None, **settings: Any) -> list[Tensor]:
    """Return everything a training leaves behind: weights, buffers, optimiser, random state."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.Flatten(), nn.Linear(3 * 36, 4))
    module = Module(model, [torch.randn(4, 3, 6, 6) for _ in range(STEPS)], squares)
    trainer = fit(module, run, plan, **settings)
    state = trainer.optimizers[0].state_dict()["state"]
    moments = [moment["momentum_buffer"] for moment in state.values()]
    inputs = [*module.batches]
    return [*module.state_dict().values(), *moments, *inputs, torch.get_rng_state()]


@pytest.mark.parametrize(
    "clip", [{}, {"gradient_clip_val": 0.01}, {"gradient_clip_val": 0.001,
    "gradient_clip_algorithm": "value"}], ids=["free", "by norm", "by value"],
)  # fmt: skip
@pytest.mark.parametrize(
    "plan", [NORMS, STATS, FULL, DEBUG], ids=["norms", "stats", "full", "debug"]
)
def test_everything_is_the_same_bits_with_it_and_without(
    plan: Plan, clip: dict[str, Any], tmp_path: Path
) -> None:
    without = train(tmp_path / "off", None, **clip)
    with_it = train(tmp_path / "on", plan, **clip)
    assert len(load(tmp_path / "on", "steps")) == STEPS
    for mine, theirs in zip(with_it, without, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("clip", slow_but(["null", "0.05"], "0.05"))
def test_a_run_has_the_same_weights_at_every_tier(
    style: str, clip: str, train: Train, tmp_path: Path
) -> None:
    """Where clipping needs the norms too, they are measured once; the bits are the same."""
    weights = []
    for tier in ("off", "norms", "debug"):
        overrides = (f"model={style}", f"recorder={tier}", f"trainer.gradient_clip_val={clip}")
        train(*overrides, "data.limit=640", "logger=none", name=tier)
        path = tmp_path / tier / "checkpoints" / "last.ckpt"
        saved = torch.load(path, weights_only=True)
        weights.append([*saved["state_dict"].values(), *_tensors(saved["optimizer_states"])])
    assert len(weights[0]) > 10
    for others in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], others, strict=True))


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    return [t for v in values if isinstance(v, dict | list | Tensor) for t in _tensors(v)]


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().split("::")[1].split(".")[0] in (
            "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_to_cpu", "bincount", "item",
        ):  # fmt: skip
            self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("plan", [NORMS, STATS, FULL], ids=["norms", "stats", "full"])
def test_nothing_waits_and_nothing_is_written_between_flushes(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of an accelerator, taken on the CPU: there, reading a value would be a wait."""
    monkeypatch.setattr(measurement, "is_on_cpu", lambda tensor: False)
    monkeypatch.setattr(histograms, "is_on_cpu", lambda tensor: False)
    host_copies, writes = Counter[str](), []
    for name in ("cpu", "numpy", "tolist", "item"):
        plain = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, _counting(plain, name, host_copies))
    append = Store.append

    def noted(store: Store, table: str, *rest: Any) -> Any:
        writes.append(table)
        return append(store, table, *rest)

    monkeypatch.setattr(Store, "append", noted)
    counts: dict[str, Counter[str]] = {}
    for what, chosen in (("off", None), ("on", plan)):
        host_copies.clear()
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
        module = Module(model, [torch.randn(4, 3, 6, 6) for _ in range(STEPS)], squares)
        settings = {"recorder": {"flush_every_n_steps": STEPS + 1}} if chosen else {}
        with Waits() as waits:
            look = _AtLastStep(waits.counts, host_copies, writes)
            fit(module, tmp_path / what, chosen, callbacks=[look], **settings)
        counts[what] = look.seen
    assert counts["on"] == counts["off"]
    assert len(load(tmp_path / "on", "steps")) == STEPS


def _counting(plain: Any, name: str, counts: Counter[str]) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return plain(*args, **kwargs)

    return wrapper


class _AtLastStep(pl.Callback):
    def __init__(self, waits: Counter[str], copies: Counter[str], writes: list[str]) -> None:
        self._waits, self._copies, self._writes = waits, copies, writes

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == STEPS:
            self.seen = self._waits + self._copies
            assert not self._writes


def test_an_accelerator_gets_the_same_record(tmp_path: Path, monkeypatch: Any) -> None:
    for what in ("host", "accelerator"):
        if what == "accelerator":
            monkeypatch.setattr(measurement, "is_on_cpu", lambda tensor: False)
            monkeypatch.setattr(histograms, "is_on_cpu", lambda tensor: False)
        train(tmp_path / what, FULL)
    for table in ("steps", "parameters", "layers", "histograms"):
        mine, theirs = (load(tmp_path / what, table) for what in ("host", "accelerator"))
        kept = [name for name in mine.column_names if name != "time"]
        first, second = (repr(found.select(kept).to_pylist()) for found in (mine, theirs))
        assert first == second


def test_without_any_detail_there_is_no_recorder(train: Train, tmp_path: Path) -> None:
    train("recorder=off", "trainer.max_steps=2", "logger=none")
    assert not (tmp_path / "run" / "gradients").exists()
