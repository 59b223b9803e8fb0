"""Where was a NaN born? The failing step once more, layer by layer, with everything as it was."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convtrain.data.batches import Batch
from convtrain.models.observe import observe_outputs
from convtrain.training.task import Task


@dataclass
class Birth:
    """Where the first value that is not finite came from.

    Attributes:
        where: in words, such as ``forward pass of relu_2``; empty where the replay was finite.
        batch_idx: of the micro-batch.
        losses: of the micro-batches that were replayed.
    """

    where: str = ""
    batch_idx: int | None = None
    losses: list[Tensor] = field(default_factory=list)


def find_birth(
    task: Task, batches: Sequence[tuple[Batch, int]], context: AbstractContextManager[Any]
) -> Birth:
    """Replay the micro-batches of a step whose gradients are not finite.

    Nothing of the replay stays behind: gradients, buffers and random state are as before.

    Args:
        task: with the weights that the step was computed from.
        batches: the micro-batches since the last step, with their places in the epoch.
        context: of the forward pass, such as autocast.
    """
    birth = Birth()
    for name, parameter in task.model.named_parameters():
        if not _finite(parameter):
            birth.where = f"weights themselves: {name} was not finite before the step"
            return birth
    with _undone(task), context:
        for batch, batch_idx in batches:
            where, loss = _replay(task, batch, batch_idx)
            birth.losses.append(loss)
            if where and not birth.where:
                birth.where, birth.batch_idx = where, batch_idx
    return birth


def _replay(task: Task, batch: Batch, batch_idx: int) -> tuple[str, Tensor]:
    forward: list[tuple[str, bool]] = [("input", _finite(batch.images))]
    backward: list[tuple[str, bool]] = []

    def observe(layer: str, output: Any) -> None:
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                forward.append((layer, _finite(tensor)))
                if tensor.requires_grad:
                    tensor.register_hook(lambda g: backward.append((layer, _finite(g))))

    with torch.enable_grad(), observe_outputs(task.model, observe):
        loss, _ = task.loss_and_scores(batch, batch_idx)
    parameters = [(n, p) for n, p in task.model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in parameters], allow_unused=True)
    broken = [
        name
        for (name, _), gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and not _finite(gradient)
    ]
    return _where(forward, _finite(loss), backward, broken), loss.detach()


def _where(
    forward: list[tuple[str, bool]],
    loss_is_finite: bool,
    backward: list[tuple[str, bool]],
    broken: list[str],
) -> str:
    for layer, finite in forward:
        if not finite:
            return "input" if layer == "input" else f"forward pass of {layer}"
    if not loss_is_finite:
        return "loss"
    came_from = "loss"
    for layer, finite in backward:
        if not finite:
            return f"backward pass of {came_from}"
        came_from = layer
    return f"backward pass of {broken[0].rpartition('.')[0]}" if broken else ""


@contextmanager
def _undone(task: Task) -> Iterator[None]:
    buffers = [(buffer, buffer.clone()) for buffer in task.model.buffers()]
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())
