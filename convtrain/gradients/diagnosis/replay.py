"""Replay a step whose gradients are not finite, and return the state that reproduces it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from convtrain.data.batches import Batch
from convtrain.data.randomness import seed_device
from convtrain.gradients.diagnosis.nan_origin import NanOrigin
from convtrain.gradients.record.microbatches import Buffers, MicroBatches
from convtrain.gradients.record.statistics import is_finite
from convtrain.models.observe import observe_outputs
from convtrain.training.norms import whole
from convtrain.training.parts import named_parameters
from convtrain.training.task import Task

State = dict[str, Any]
"""Tensors and plain containers that suffice to repeat a step, and that a checkpoint can hold."""


@dataclass
class Replay:
    """The result of repeating a step.

    ``where`` is the origin, such as ``forward pass of relu_2``, empty if all was finite, and
    ``micro_batch`` its index from 0. ``losses`` are weighted; their sum is the step's loss.
    ``gradients`` are by parameter name, summed over the micro-batches, before clipping. ``is_same``
    says whether they have the original step's bits; None where several devices averaged them.
    """

    where: str = ""
    micro_batch: int | None = None
    losses: list[Tensor] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    is_same: bool | None = None


def replay_step(
    trainer: pl.Trainer, task: Task, micro_batches: MicroBatches
) -> tuple[Replay, State]:
    """Repeat a step before the optimiser applies it; return the state for :func:`replay_saved` too.

    Gradients, buffers and random state are unchanged afterwards.
    """
    state: State = {
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "parts": trainer.accumulate_grad_batches,
        "micro_batches": [
            _state_of(batch, batch_idx, task.seed_of(batch_idx))
            for batch, batch_idx in micro_batches.batches
        ],
        "buffers": micro_batches.buffers,
        "weights": {name: p.detach() for name, p in named_parameters(task.parts)},
    }
    found = replay_saved(task, state, trainer.precision_plugin.train_step_context)
    told = {"nan_origin": found.where, "micro_batch": found.micro_batch, "losses": found.losses}
    return found, {**told, "digest": digest_of(found.gradients), **state}


def replay_saved(
    task: Task, state: State, context: Callable[[], AbstractContextManager[object]]
) -> Replay:
    """Repeat a step from its state; ``task`` must hold the weights from before the step."""
    found = Replay()
    with _restored(task, state["buffers"]), torch.compiler.set_stance("force_eager"):
        for number, saved in enumerate(state["micro_batches"]):
            where = _replay(task, saved, context, state["parts"], found)
            if where and not found.where:
                found.where, found.micro_batch = where, number
    for name, parameter in named_parameters(task.parts):
        if not is_finite(parameter):
            found.where = f"weights themselves, of which {name} is not finite"
            found.micro_batch = None
            break
    return found


def digest_of(gradients: Mapping[str, Tensor]) -> str:
    """Return a checksum of tensors by name, in which all NaN are equal."""
    digest = hashlib.sha256()
    for name, gradient in sorted(gradients.items()):
        values = whole(gradient.detach()).cpu().contiguous()
        values = torch.where(values.isnan(), torch.nan, values)
        digest.update(name.encode() + values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state_of(batch: Batch, batch_idx: int, seed: int) -> State:
    tensors = {
        name: v.clone() if isinstance(v, Tensor) else v for name, v in batch._asdict().items()
    }
    random_state = torch.Generator().manual_seed(seed).get_state()
    return {**tensors, "batch_idx": batch_idx, "seed": seed, "random_state": random_state}


def _replay(
    task: Task,
    saved: State,
    context: Callable[[], AbstractContextManager[object]],
    parts: int,
    found: Replay,
) -> str:
    """Repeat a micro-batch, add its loss and gradients to ``found``, and return its origin."""
    batch = Batch(*(saved[field] for field in Batch._fields))
    origin = NanOrigin(batch.images)
    observed = observe_outputs(task.model, origin.leave_layer, origin.enter_layer)
    with torch.enable_grad(), observed, context():
        seed_device(task.device, saved["seed"])
        logits = task(batch.images)
        loss = task.loss(logits, batch.targets)
        origin.enter_loss(logits, loss)
        weighted = (loss * batch.loss_weight if batch.loss_weight != 1 else loss) / parts
    found.losses.append(weighted.detach())
    parameters = {n: p for n, p in named_parameters(task.parts) if p.requires_grad}
    gradients = torch.autograd.grad(weighted, list(parameters.values()), allow_unused=True)
    where = origin.where
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if not where and not is_finite(gradient):
            where = f"sum of the gradients of {name} over its uses"
        before = found.gradients.get(name)
        found.gradients[name] = summed = gradient if before is None else before + gradient
        if not where and not is_finite(summed):
            where = f"sum of the gradients of {name} over the micro-batches"
    return where


@contextmanager
def _restored(task: Task, buffers: Mapping[str, Tensor | None]) -> Iterator[None]:
    buffers_now = Buffers(task.parts)
    originals = buffers_now.tensors()
    with torch.random.fork_rng([task.device] if task.device.type == "cuda" else []):
        try:
            given = {k: None if t is None else t.clone() for k, t in buffers.items()}
            buffers_now.put({**buffers_now.clone(), **given})
            yield
        finally:
            buffers_now.put(originals)
