"""Where the time of a training goes: by stage of the pipeline, and by layer.

``trainer.profiler=stages``, which ``debug=profiler`` sets. Lightning tells a profiler when each of
its actions begins and ends; an action within another counts for itself alone, so that the stages
add up to the whole. On a GPU the host waits at the end of each action, or the time would be that of
launching kernels: the training is slower then, and its parts are true.
"""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convtrain.models.compiled import is_compiled
from convtrain.models.observe import observe_outputs
from convtrain.text import make_console

log = logging.getLogger("convtrain")

STAGES = (
    ("dataloader_next", "data", "making a batch"),
    ("val_next", "data", "making a batch"),
    ("batch_to_device", "data", "moving it to the device"),
    ("batch_transfer", "data", "moving it to the device"),
    (".training_step", "compute", "forward pass and loss"),
    (".backward", "compute", "backward pass"),
    ("clipping", "compute", "clipping gradients"),
    ("optimizer_zero_grad", "compute", "weight update"),
    ("Task.optimizer_step", "compute", "weight update"),
    ("lr_scheduler_step", "compute", "weight update"),
    ("validation_step", "compute", "validation"),
    ("[Callback]Recorder", "around it", "gradient record"),
    ("[Callback]LayerClock", "around it", "this report"),
    ("[Callback]RunProgress", "around it", "progress bar"),
    ("Checkpoint", "around it", "checkpoints"),
    ("save_checkpoint", "around it", "checkpoints"),
    ("[Callback]", "around it", "other callbacks"),
    ("on_validation", "around it", "logging and metrics"),
    ("on_train", "around it", "logging and metrics"),
    ("", "around it", "Lightning's loop"),
)
"""Part of an action's name, and what it belongs to; the first that fits."""

WHOLE = "run_training_epoch"
FIRST, EVERY, MOST = 3, 5, 40
"""Steps at which layers are timed: from the 3rd on, every 5th, 40 of them."""


@dataclass
class Spent:
    """Time of one stage, in seconds."""

    seconds: float = 0.0
    calls: int = 0


class StageProfiler(Profiler):
    """Adds up the time of each stage of the training, and writes the report when it ends.

    Args:
        folder: where ``profile.txt`` is written.

    Attributes:
        layers: the callback that times layers.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.layers = folder, LayerClock()
        self.stages: dict[tuple[str, str], Spent] = {}
        self._open: list[list[float]] = []  # of each action begun: when, and what its parts took
        self._within = 0  # of how many epochs

    def start(self, action_name: str) -> None:
        if action_name == WHOLE:
            self._within += 1
        if self._within:
            _wait()
            self._open.append([time.perf_counter(), 0.0])

    def stop(self, action_name: str) -> None:
        if not self._open:
            return
        _wait()
        began, parts = self._open.pop()
        whole = time.perf_counter() - began
        if self._open:
            self._open[-1][1] += whole
        spent = self.stages.setdefault(stage_of(action_name), Spent())
        spent.seconds += whole - parts
        spent.calls += 1
        if action_name == WHOLE:
            self._within -= 1

    def describe(self) -> None:
        """Print the report of a training, and keep it in the run's directory."""
        if self._stage != "fit" or self._local_rank or not self.stages:
            return
        tables = [stage_table(self.stages)]
        if self.layers.forward:
            tables.append(self.layers.table())
        with (self.folder / "profile.txt").open("w") as file:
            for console in (make_console(), make_console(file=file, width=100)):
                for table in tables:
                    console.print(table)


class LayerClock(pl.Callback):
    """Takes the time of each layer, forward and backward, at some of the steps.

    A layer's forward time ends with its output; its backward time lies between the gradient of its
    output and that of the output before it. In a compiled model there are none to be told apart.
    """

    def __init__(self) -> None:
        self.forward: dict[str, list[float]] = {}
        self.backward: dict[str, list[float]] = {}
        self._left, self._open = MOST, ExitStack()
        self._marks: list[_Mark] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_compiled(pl_module):
            log.warning("the model is compiled: its layers are not timed")
            self._left = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._marks = []
        if self._left and batch_idx >= FIRST and batch_idx % EVERY == 0:
            self._left -= 1
            self._open.enter_context(observe_outputs(pl_module.model, self._observe))  # type: ignore[arg-type]
            self._began = _now(pl_module.device)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._open.close()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._marks:
            return
        end = _now(pl_module.device)
        _wait()
        before = self._began
        for mark in self._marks:
            self.forward.setdefault(mark.layer, []).append(_between(before, mark.returned))
            before = mark.returned
        seen = [mark for mark in self._marks if mark.gradient is not None]
        for mark, earlier in zip(seen, [None, *seen[:-1]], strict=True):
            stop = end if earlier is None else earlier.gradient
            self.backward.setdefault(mark.layer, []).append(_between(mark.gradient, stop))

    def _observe(self, layer: str, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if not tensors:
            return
        state = id(tensors[0]), tensors[0]._version
        if self._marks and self._marks[-1].state == state:
            return  # a container, which hands on what its last layer returned
        mark = _Mark(layer, state, _now(tensors[0].device), keep=tensors[0])
        self._marks.append(mark)
        if tensors[0].requires_grad:
            tensors[0].register_hook(lambda _, mark=mark: mark.take_gradient())

    def table(self) -> Table:
        """Return the layers in the order of their calls, with milliseconds a call."""
        table = _table("layer", "forward, ms", "backward, ms", "share")
        means = {
            layer: (_mean_ms(times), _mean_ms(self.backward.get(layer, [])))
            for layer, times in self.forward.items()
        }
        whole = sum(map(sum, means.values())) or 1.0
        for layer, (forward, backward) in means.items():
            share = f"{(forward + backward) / whole:.1%}"
            table.add_row(layer, f"{forward:.3f}", f"{backward:.3f}", share)
        return table


@dataclass
class _Mark:
    layer: str
    state: tuple[int, int]
    returned: Any
    gradient: Any = None
    keep: Tensor | None = field(default=None, repr=False)  # or another could have its id

    def take_gradient(self) -> None:
        assert self.keep is not None
        self.gradient, self.keep = _now(self.keep.device), None


def stage_of(action: str) -> tuple[str, str]:
    """Return which side an action of Lightning's belongs to, and which stage."""
    return next((side, stage) for part, side, stage in STAGES if part in action)


def stage_table(stages: dict[tuple[str, str], Spent]) -> Table:
    """Return the stages, those that took longest first, and the sum of each side."""
    whole = sum(spent.seconds for spent in stages.values()) or 1.0
    table = _table("stage", "side", "seconds", "share", "calls", "ms a call")
    for (side, stage), spent in sorted(stages.items(), key=lambda each: -each[1].seconds):
        table.add_row(
            stage, side, f"{spent.seconds:.3f}", f"{spent.seconds / whole:.1%}",
            f"{spent.calls:,}", f"{spent.seconds / spent.calls * 1000:.3f}",
        )  # fmt: skip
    table.add_section()
    for side in dict.fromkeys(side for _, side, _ in STAGES):
        seconds = sum(spent.seconds for key, spent in stages.items() if key[0] == side)
        table.add_row(f"all {side}", "", f"{seconds:.3f}", f"{seconds / whole:.1%}", "", "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        text = name in ("stage", "side", "layer")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table


def _mean_ms(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds) * 1000 if seconds else 0.0


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _now(device: torch.device) -> Any:
    """Return this moment on the device, without waiting for it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(first: Any, second: Any) -> float:
    """Return the seconds between two moments; of a GPU's, when it has passed both."""
    return second - first if isinstance(first, float) else first.elapsed_time(second) / 1000
