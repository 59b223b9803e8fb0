"""``trainer.profiler=stages``: the time of a training by stage of the pipeline, and by layer.

The time of one of Lightning's actions excludes the actions inside it, so the stages add up to the
whole. On a GPU the host waits at both ends of each action, because otherwise it would measure
kernel launches. That slows the training, but the shares are right.
"""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convtrain.models.compiled import is_compiled
from convtrain.models.observe import observe_outputs
from convtrain.text import make_console
from convtrain.training.task import Task

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
    ("[Callback]Recorder", "overhead", "gradient record"),
    ("[Callback]LayerClock", "overhead", "this report"),
    ("[Callback]RunProgress", "overhead", "progress bar"),
    ("Checkpoint", "overhead", "checkpoints"),
    ("save_checkpoint", "overhead", "checkpoints"),
    ("[Callback]", "overhead", "other callbacks"),
    ("on_validation", "overhead", "logging and metrics"),
    ("on_train", "overhead", "logging and metrics"),
    ("", "overhead", "Lightning's loop"),
)
"""Part of an action's name, its side and its stage; the first match counts."""

EPOCH = "run_training_epoch"
FIRST_TIMED_BATCH, TIMED_EVERY_N_BATCHES, MAX_TIMED_BATCHES = 3, 5, 40
"""The batches in which layers are timed."""

Moment = float | torch.cuda.Event


@dataclass
class Spent:
    seconds: float = 0.0
    calls: int = 0


class StageProfiler(Profiler):
    """Adds up the time of each stage, and writes ``profile.txt`` into ``folder`` at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.layers = folder, LayerClock()
        self.stages: dict[tuple[str, str], Spent] = {}
        self._open: list[list[float]] = []  # for each open action: its start, seconds of its parts
        self._in_epoch = False

    def start(self, action_name: str) -> None:
        self._in_epoch = self._in_epoch or action_name == EPOCH
        if self._in_epoch:
            _wait()
            self._open.append([time.perf_counter(), 0.0])

    def stop(self, action_name: str) -> None:
        if not self._open:
            return
        _wait()
        began, parts = self._open.pop()
        seconds = time.perf_counter() - began
        if self._open:
            self._open[-1][1] += seconds
        side, stage = next((side, stage) for part, side, stage in STAGES if part in action_name)
        spent = self.stages.setdefault((side, stage), Spent())
        spent.seconds += seconds - parts
        spent.calls += 1
        self._in_epoch = self._in_epoch and action_name != EPOCH

    def describe(self) -> None:
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
    """Times each layer, forward and backward, in some of the batches.

    The backward time of a layer ends when the gradient of the previous layer's output is known. The
    layers of a compiled model are not separate.
    """

    def __init__(self) -> None:
        self.forward: dict[str, list[float]] = {}
        self.backward: dict[str, list[float]] = {}
        self._left, self._open = MAX_TIMED_BATCHES, ExitStack()
        self._calls: list[_Call] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_compiled(pl_module):
            log.warning("the model is compiled: its layers are not timed")
            self._left = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._calls = []
        due = batch_idx >= FIRST_TIMED_BATCH and batch_idx % TIMED_EVERY_N_BATCHES == 0
        if self._left and due and isinstance(pl_module, Task):
            self._left -= 1
            self._open.enter_context(observe_outputs(pl_module.model, self._observe))
            self._began = _now(pl_module.device)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._open.close()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._calls:
            return
        before, end = self._began, _now(pl_module.device)
        _wait()
        for call in self._calls:
            self.forward.setdefault(call.layer, []).append(_seconds(before, call.returned))
            before = call.returned
        for call in self._calls:  # a layer's backward pass ends when the previous layer's begins
            if call.gradient is not None:
                self.backward.setdefault(call.layer, []).append(_seconds(call.gradient, end))
                end = call.gradient

    def _observe(self, layer: str, output: object) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if not tensors:
            return
        state = id(tensors[0]), tensors[0]._version
        if self._calls and self._calls[-1].state == state:
            return  # a container, which returns the output of its last layer
        call = _Call(layer, state, _now(tensors[0].device), output=tensors[0])
        self._calls.append(call)
        if tensors[0].requires_grad:
            tensors[0].register_hook(lambda _, call=call: call.take_gradient())

    def table(self) -> Table:
        table = _table("layer", "forward, ms", "backward, ms", "share")
        means = {
            layer: (_mean_ms(times), _mean_ms(self.backward.get(layer, [])))
            for layer, times in self.forward.items()
        }
        total = sum(map(sum, means.values())) or 1.0
        for layer, (forward, backward) in means.items():
            share = f"{(forward + backward) / total:.1%}"
            table.add_row(layer, f"{forward:.3f}", f"{backward:.3f}", share)
        return table


@dataclass
class _Call:
    """A call of a layer; ``gradient`` is the time when the gradient of its output was known."""

    layer: str
    state: tuple[int, int]
    returned: Moment
    gradient: Moment | None = None
    output: Tensor | None = field(default=None, repr=False)  # kept, so that its id is not reused

    def take_gradient(self) -> None:
        assert self.output is not None
        self.gradient, self.output = _now(self.output.device), None


def stage_table(stages: dict[tuple[str, str], Spent]) -> Table:
    """Return the stages, the longest first, and the sum of each side."""
    total = sum(spent.seconds for spent in stages.values()) or 1.0
    table = _table("stage", "side", "seconds", "share", "calls", "ms a call")
    for (side, stage), spent in sorted(stages.items(), key=lambda each: -each[1].seconds):
        table.add_row(
            stage, side, f"{spent.seconds:.3f}", f"{spent.seconds / total:.1%}",
            f"{spent.calls:,}", f"{spent.seconds / spent.calls * 1000:.3f}",
        )  # fmt: skip
    table.add_section()
    for side in ("data", "compute", "overhead"):
        seconds = sum(spent.seconds for key, spent in stages.items() if key[0] == side)
        table.add_row(f"all {side}", "", f"{seconds:.3f}", f"{seconds / total:.1%}", "", "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        is_text = name in ("stage", "side", "layer")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    return table


def _mean_ms(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds) * 1000 if seconds else 0.0


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _now(device: torch.device) -> Moment:
    """Return the time on the device, without waiting for the device."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(first: Moment, second: Moment) -> float:
    if isinstance(first, float) and isinstance(second, float):
        return second - first
    milliseconds: float = first.elapsed_time(second)  # type: ignore[union-attr,arg-type]
    return milliseconds / 1000
