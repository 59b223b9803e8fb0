"""What surrounds the gradients of a step: scaling, clipping, compiling, optimisers, the device."""

from typing import Any, Literal

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from convtrain.training.task import Task

Clipping = Literal["none", "norm", "value", "unknown"]


def clipping_of(trainer: pl.Trainer, module: pl.LightningModule) -> Clipping:
    """Tell how gradients are clipped; ``unknown`` where the module's own code may do it."""
    own = type(module).configure_gradient_clipping
    known = (pl.LightningModule.configure_gradient_clipping, Task.configure_gradient_clipping)
    if not module.automatic_optimization or own not in known:
        return "unknown"
    if not trainer.gradient_clip_val:
        return "none"
    return "value" if trainer.gradient_clip_algorithm == "value" else "norm"


def scaler_of(trainer: pl.Trainer) -> Any:
    """Return what scales the loss in mixed precision, None where nothing does."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def loss_scale(scaler: Any) -> Tensor | None:
    """Return the factor that is on the loss, on its device."""
    return None if scaler is None or scaler._scale is None else scaler._scale.clone()


def unscales_itself(optimizer: Any) -> bool:
    """Tell whether a fused optimiser takes the scale off in its step, later than others."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def learning_rates(optimizer: Optimizer) -> list[Any]:
    """Return the rate of each group; one that is a tensor, and changes in place, is copied."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]


def without_optimizer(trainer: pl.Trainer, model: nn.Module) -> list[str]:
    """Return the names of parameters that want a gradient and belong to no optimiser."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    named = model.named_parameters()
    return [name for name, p in named if p.requires_grad and id(p) not in held]


def is_on_cpu(tensor: Tensor) -> bool:
    """Tell whether the host can read a value without waiting for a device."""
    return tensor.device.type == "cpu"
