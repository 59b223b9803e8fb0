"""A LightningModule of any network, and the same training by hand with ``autograd.grad``."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from convtrain.config.groups.recorder import Sampling
from convtrain.gradients.record.recorder import Recorder
from convtrain.gradients.record.schedule import Plan


def every(n_steps: int, first: int = 0) -> Sampling:
    return Sampling(every_n_steps=n_steps, first_n_steps=first)


EVERY = every(1)
NORMS = Plan()
STATS = Plan(statistics=EVERY)
FULL = Plan(statistics=EVERY, distributions=EVERY)
DEBUG = Plan(statistics=EVERY, distributions=EVERY, tensors=EVERY)

Loss = Callable[[nn.Module, Any], Tensor]


def squares(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).square().mean()


class Module(pl.LightningModule):
    """Trains with momentum SGD, one micro-batch after the other, in the order given."""

    def __init__(self, model: nn.Module, batches: Sequence[Any], loss: Loss, **optimizer: Any):
        super().__init__()
        self.model, self.batches, self.loss = model, batches, loss
        self.optimizer = {"lr": 0.1, "momentum": 0.9, **optimizer}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(batch_idx)
        return self.loss(self.model, batch)

    def train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, **self.optimizer)


def fit(
    module: pl.LightningModule, run: Path, plan: Plan | None = NORMS, **settings: Any
) -> pl.Trainer:
    """Train one epoch with the recorder, or without where there is no plan."""
    # What is recorded shall not depend on the time that it takes.
    recorder_settings = {"max_overhead": 1.0, **settings.pop("recorder", {})}
    callbacks = [*settings.pop("callbacks", [])]
    if plan is not None:
        callbacks.append(Recorder(run_dir=run, plan=plan, **recorder_settings))
    trainer = pl.Trainer(
        accelerator=settings.pop("accelerator", "cpu"),
        devices=1,
        max_epochs=settings.pop("max_epochs", 1),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module)
    return trainer


@dataclass
class Step:
    """What a step should have recorded, computed in float64 from gradients taken by hand."""

    gradients: dict[str, Tensor]
    total: float
    clipped: float
    loss: float
    micro_batches: int
    ratios: dict[str, float] = field(default_factory=dict)


def by_hand(
    model: nn.Module,
    batches: Sequence[Any],
    loss: Loss = squares,
    *,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    lr: float = 0.1,
    momentum: float = 0.9,
) -> Iterator[Step]:
    """Train a copy of the model with ``autograd.grad`` and SGD written out."""
    model = copy.deepcopy(model)
    velocity: dict[str, Tensor] = {}
    for start in range(0, len(batches), accumulate):
        part = range(start, min(start + accumulate, len(batches)))
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        summed: dict[str, Tensor] = {}
        losses = []
        for index in part:
            torch.manual_seed(index)
            value = loss(model, batches[index])
            losses.append(value.item())
            found = torch.autograd.grad(value / accumulate, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, found, strict=True):
                if gradient is not None:
                    summed[name] = summed[name] + gradient if name in summed else gradient
        total = norm_of(summed)
        used = summed
        if clip_norm is not None:
            used = {n: g * min(1.0, clip_norm / (total + 1e-6)) for n, g in summed.items()}
        elif clip_value is not None:
            used = {n: g.clamp(-clip_value, clip_value) for n, g in summed.items()}
        ratios = {}
        with torch.no_grad():
            for name, gradient in used.items():
                before = named[name].double().norm()
                velocity[name] = momentum * velocity.get(name, 0) + gradient
                named[name].sub_(lr * velocity[name])
                ratios[name] = ((lr * velocity[name]).double().norm() / before).item()
        mean = sum(losses) / len(losses)
        yield Step(summed, total, norm_of(used), mean, len(part), ratios)


def norm_of(gradients: Mapping[str, Tensor]) -> float:
    return sum(g.to_dense().abs().double().square().sum().item() for g in gradients.values()) ** 0.5
