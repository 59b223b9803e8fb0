"""The micro-batches of the step at hand, and what a row needs of them once the step is done."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from convtrain.data.batches import Batch, Batches
from convtrain.gradients.record.capture import Capture, LayerRecord
from convtrain.gradients.record.overhead import Overhead


class Buffers:
    """A model's buffers, wherever a forward pass may put another tensor in their place."""

    def __init__(self, model: nn.Module) -> None:
        self._places = {
            f"{path}.{name}" if path else name: (module._buffers, name)
            for path, module in model.named_modules()
            for name in module._buffers
        }

    def tensors(self) -> dict[str, Tensor | None]:
        return {key: store[name] for key, (store, name) in self._places.items()}

    def clone(self) -> dict[str, Tensor | None]:
        return {k: None if t is None else t.detach().clone() for k, t in self.tensors().items()}

    def put(self, tensors: Mapping[str, Tensor | None]) -> None:
        """Put tensors in the places of buffers, by name."""
        for key, tensor in tensors.items():
            store, name = self._places[key]
            store[name] = tensor


class MicroBatches:
    """Keeps batches, losses and what the layers put out, until the step is done.

    Args:
        model: that processes them.
        overhead: is told what capturing takes.
        keeps_buffers: the model's buffers are kept as they were before the first one, so that the
            step can be replayed.

    Attributes:
        batches: each with its place in the epoch.
        losses: of those that are done; the mean of these is the step's.
        buffers: by name, as they were before the step.
        layers, input_gradient: of the first one, where they are captured.
    """

    def __init__(self, model: nn.Module, overhead: Overhead, *, keeps_buffers: bool) -> None:
        self._model, self._buffers = model, Buffers(model) if keeps_buffers else None
        self._capture: Capture | None = None
        self._done_before: list[int] = []  # the places of those that a resume has cut off
        self._overhead = overhead
        self.clear()

    def clear(self) -> None:
        """Forget them: the next one belongs to another step."""
        self.batches: list[tuple[Any, int]] = []
        self.losses: list[Tensor] = []
        self.buffers: dict[str, Tensor | None] = {}
        self.layers: LayerRecord | None = None
        self.input_gradient: Tensor | None = None

    def begin(self, trainer: pl.Trainer, batch: Any, batch_idx: int, *, captures: bool) -> None:
        """Take note of a batch that is about to be processed."""
        if self._done_before:
            self.batches = [(_made_again(trainer, place), place) for place in self._done_before]
            self._done_before = []
        if not self.batches:
            if self._buffers is not None:
                self.buffers = self._buffers.clone()
            if captures:
                self._capture = Capture(self._model, batch)
        self.batches.append((batch, batch_idx))

    def end(self, loss: Tensor | None) -> None:
        """Take note of what is known after a backward pass."""
        if loss is not None:
            self.losses.append(loss)
        if self._capture is not None:
            capture, self._capture = self._capture, None
            gradient = capture.input_gradient
            self.input_gradient = None if gradient is None else gradient.detach().clone()
            self.layers = capture.finish()
            self._overhead.add("distributions", capture.seconds)

    def indices(self) -> list[Tensor]:
        """Return the places in the dataset of each micro-batch's images, where they are known."""
        return [batch.indices for batch, _ in self.batches if isinstance(batch, Batch)]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint between two micro-batches of a step has to hold."""
        if not self.batches:
            return {}
        return {
            "batch_idx": [batch_idx for _, batch_idx in self.batches],
            "losses": [loss.detach() for loss in self.losses],
            "buffers": dict(self.buffers),
            "layers": None if self.layers is None else vars(self.layers),
            "input_gradient": self.input_gradient,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        if not state:
            return
        on_device = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.to(device), state)
        self._done_before, self.losses = on_device["batch_idx"], on_device["losses"]
        self.buffers, self.input_gradient = on_device["buffers"], on_device["input_gradient"]
        layers = on_device["layers"]
        self.layers = None if layers is None else LayerRecord(**layers)


def _made_again(trainer: pl.Trainer, place: int) -> Any:
    """Return a batch of this epoch as the training has seen it; None where that is unknown."""
    loader = trainer.train_dataloader
    if not isinstance(loader, Batches):
        return None
    batch = trainer.precision_plugin.convert_input(loader.at(place))
    return trainer.strategy.batch_to_device(batch)
