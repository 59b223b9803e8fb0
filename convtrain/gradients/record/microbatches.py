"""The micro-batches of the current step, kept for its record or a replay."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from convtrain.data.batches import Batch, Batches
from convtrain.gradients.record.capture import INPUT, Capture, LayerRecord
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.steps import StepRecord
from convtrain.training.parts import Parts, named_modules


class Buffers:
    """All buffers by name; a forward pass may replace the tensors."""

    def __init__(self, parts: Parts) -> None:
        self._owners = {
            f"{path}.{name}" if path else name: (module._buffers, name)
            for path, module in named_modules(parts)
            for name in module._buffers
        }

    def tensors(self) -> dict[str, Tensor | None]:
        return {key: owner[name] for key, (owner, name) in self._owners.items()}

    def clone(self) -> dict[str, Tensor | None]:
        return {k: None if t is None else t.detach().clone() for k, t in self.tensors().items()}

    def put(self, tensors: Mapping[str, Tensor | None]) -> None:
        for key, tensor in tensors.items():
            owner, name = self._owners[key]
            owner[name] = tensor


class MicroBatches:
    """Keeps the batches, losses and layer outputs of a step until it is done.

    Attributes:
        batches: each with its ``batch_idx`` in the epoch.
        losses: one for each backward pass that is done.
        buffers: from before the step, if it may be replayed.
        layers, input_gradient: from the first micro-batch, if it was captured.
    """

    def __init__(self, parts: Parts, overhead: Overhead, *, keeps_buffers: bool) -> None:
        self._model, self._buffers = parts[""], Buffers(parts) if keeps_buffers else None
        self._capture: Capture | None = None
        self._done_before: list[int] = []  # batch_idx before the checkpoint
        self._overhead = overhead
        self.clear()

    def clear(self) -> None:
        self.batches: list[tuple[Any, int]] = []
        self.losses: list[Tensor] = []
        self.buffers: dict[str, Tensor | None] = {}
        self.layers: LayerRecord | None = None
        self.input_gradient: Tensor | None = None

    def begin(self, trainer: pl.Trainer, batch: object, batch_idx: int, *, captures: bool) -> None:
        """Add a batch before its forward pass."""
        if self._done_before:
            self.batches = [(_load_again(trainer, index), index) for index in self._done_before]
            self._done_before = []
        if not self.batches:
            if self._buffers is not None:
                self.buffers = self._buffers.clone()
            if captures:
                self._capture = Capture(self._model, batch)
        self.batches.append((batch, batch_idx))

    def end(self, loss: object = None) -> None:
        if isinstance(loss, Tensor):
            self.losses.append(loss.detach())
        if self._capture is not None:
            capture, self._capture = self._capture, None
            gradient = capture.input_gradient
            self.input_gradient = None if gradient is None else gradient.detach().clone()
            self.layers = capture.finish()
            self._overhead.add("distributions", capture.seconds)

    def complete(self, rows: Sequence[StepRecord], *, losses_are_weighted: bool) -> None:
        """Add losses and layer outputs to the step's records; average unweighted losses."""
        losses = self.losses
        if len(losses) > 1 and not losses_are_weighted:
            losses = [torch.stack(losses).float().mean()]
        for row in rows:
            row.losses = row.losses or losses
        for row in rows[:1]:
            if row.tensors and self.input_gradient is not None:
                row.tensors[INPUT] = self.input_gradient
            if row.histograms is not None:
                row.layers = self.layers
        self.clear()

    def indices(self) -> list[Tensor]:
        """Return the dataset indices of each micro-batch's images, where they are known."""
        return [batch.indices for batch, _ in self.batches if isinstance(batch, Batch)]

    def state_dict(self) -> dict[str, object]:
        if not self.batches:
            return {}
        return {
            "batch_idx": [batch_idx for _, batch_idx in self.batches],
            "losses": [loss.detach() for loss in self.losses],
            "buffers": dict(self.buffers),
            "layers": None if self.layers is None else vars(self.layers),
            "input_gradient": self.input_gradient,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        self._done_before, self.losses = state["batch_idx"], state["losses"]
        self.buffers, self.input_gradient = state["buffers"], state["input_gradient"]
        layers = state["layers"]
        self.layers = None if layers is None else LayerRecord(**layers)


def _load_again(trainer: pl.Trainer, index: int) -> object:
    """Return a batch as training saw it; None if the loader has no random access."""
    loader = trainer.train_dataloader
    if not isinstance(loader, Batches):
        return None
    batch = trainer.precision_plugin.convert_input(loader.at(index))
    return trainer.strategy.batch_to_device(batch)
