"""A step whose gradients are not finite, once more: where it went wrong, and a file that tells."""

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
from convtrain.training.task import Task


@dataclass
class Replay:
    """What a step does when it is done again.

    Attributes:
        where: the first value that was not finite, in words such as ``forward pass of relu_2``;
            empty where all of them were finite.
        micro_batch: which micro-batch that was in, from 0.
        losses: of the micro-batches, each with its weight in the step's; they add up to that.
        gradients: by the parameter's name, summed over the micro-batches, before clipping.
        is_same: whether these are the bits of the step that is replayed; None where the step's
            gradients were averaged over several devices.
    """

    where: str = ""
    micro_batch: int | None = None
    losses: list[Tensor] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    is_same: bool | None = None


def replay_step(
    trainer: pl.Trainer, task: Task, micro_batches: MicroBatches
) -> tuple[Replay, dict[str, Any]]:
    """Do the forward and backward passes of a step again, before the optimiser's.

    Nothing stays behind: gradients, buffers and random state are as before.

    Returns:
        what the step does, and what :func:`replay_saved` needs to do it again: tensors and plain
        containers.
    """
    state = {
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "parts": trainer.accumulate_grad_batches,
        "micro_batches": [
            _state_of(batch, batch_idx, task.seed_of(batch_idx))
            for batch, batch_idx in micro_batches.batches
        ],
        "buffers": micro_batches.buffers,
        "weights": {name: p.detach() for name, p in task.model.named_parameters()},
    }
    found = replay_saved(task, state, trainer.precision_plugin.train_step_context)
    told = {"nan_origin": found.where, "micro_batch": found.micro_batch, "losses": found.losses}
    return found, {**told, "digest": digest_of(found.gradients), **state}


def replay_saved(
    task: Task, state: Mapping[str, Any], context: Callable[[], AbstractContextManager[Any]]
) -> Replay:
    """Do a step again of which :func:`replay_step` returned the state.

    Args:
        task: with the weights that the step was computed from.
        context: makes what the forward pass runs in, such as autocast.
    """
    found = Replay()
    with _undone(task, state["buffers"]), torch.compiler.set_stance("force_eager"):
        for number, saved in enumerate(state["micro_batches"]):
            batch = Batch(*(saved[field] for field in Batch._fields))
            where = _replay(task, batch, saved["seed"], context, state["parts"], found)
            if where and not found.where:
                found.where, found.micro_batch = where, number
    for name, parameter in task.model.named_parameters():
        if not is_finite(parameter):
            found.where, found.micro_batch = (
                f"weights themselves, of which {name} is not finite",
                None,
            )
            break
    return found


def _state_of(batch: Batch, batch_idx: int, seed: int) -> dict[str, Any]:
    tensors = {
        name: v.clone() if isinstance(v, Tensor) else v for name, v in batch._asdict().items()
    }
    random_state = torch.Generator().manual_seed(seed).get_state()
    return {**tensors, "batch_idx": batch_idx, "seed": seed, "random_state": random_state}


def _replay(
    task: Task,
    batch: Batch,
    seed: int,
    context: Callable[[], AbstractContextManager[Any]],
    parts: int,
    found: Replay,
) -> str:
    origin = NanOrigin()
    origin.look_at_input(batch.images)
    begins, ends = origin.layer_begins, origin.layer_ends
    with torch.enable_grad(), observe_outputs(task.model, ends, begins), context():
        seed_device(task.device, seed)
        scores = task(batch.images)
        loss = task.loss(scores, batch.targets)
        origin.follow_loss(scores, loss)
        weighted = (loss * batch.loss_weight if batch.loss_weight != 1 else loss) / parts
    found.losses.append(weighted.detach())
    parameters = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
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


def digest_of(gradients: Mapping[str, Tensor]) -> str:
    """Return a checksum of values by name, in which each NaN counts for the same."""
    digest = hashlib.sha256()
    for name, gradient in sorted(gradients.items()):
        values = whole(gradient.detach()).cpu().contiguous()
        values = torch.where(values.isnan(), torch.nan, values)
        digest.update(name.encode() + values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _undone(task: Task, buffers: Mapping[str, Tensor | None]) -> Iterator[None]:
    places = Buffers(task.model)
    originals = places.tensors()
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            given = {k: None if t is None else t.clone() for k, t in buffers.items()}
            places.put({**places.clone(), **given})
            yield
        finally:
            places.put(originals)
