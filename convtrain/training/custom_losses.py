"""Losses that a configuration names by ``_target_``: torch.nn's, and a user's own."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from convtrain.config.torch_losses import Takes
from convtrain.errors import ConfigError, first_line
from convtrain.training.losses import Loss, as_floats

BATCH = 4  # images of the trial


class TorchLoss(nn.Module):
    """A loss of torch.nn, called with the targets that it takes."""

    def __init__(self, loss: nn.Module, takes: Takes) -> None:
        super().__init__()
        self.loss, self.takes = loss, takes

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.takes.log_softmax:
            logits = F.log_softmax(logits, dim=1)
        if self.takes.targets != "indices":
            targets = as_floats(targets, logits)
        if self.takes.targets == "signs":
            targets = 2 * targets - 1
        value: Tensor = self.loss(logits, targets)
        return value


def try_loss(
    loss: Loss, where: str, *, classes: int, multi_label: bool, mixes: bool, double: bool = False
) -> None:
    """Call a loss with each kind of targets that the training will have.

    A copy is called, and the random generator is restored, so the training is not affected.

    Args:
        where: the override that names it, for errors.
        multi_label, mixes: whether an image has any number of labels, or a part of two classes.

    Raises:
        ConfigError: it fails, or returns anything but a scalar that depends on the logits.
    """
    tensors = [*loss.parameters(), *loss.buffers()] if isinstance(loss, nn.Module) else []
    if any(map(is_lazy, tensors)):
        raise ConfigError(f"{where}: has parameters without a shape; give it all its sizes")
    dtype = torch.float64 if double else torch.float32
    indices = torch.arange(BATCH) % classes
    hot = F.one_hot(indices, classes).to(dtype)
    kinds = {f"class indices ({BATCH})": indices}
    if multi_label:
        kinds = {f"labels, floats ({BATCH}, {classes})": hot}
    if mixes:
        kinds[f"fractions of classes, floats ({BATCH}, {classes})"] = (hot + hot.roll(1, 0)) / 2
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        subject = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
        if double and isinstance(subject, nn.Module):
            subject.double()
        for words, targets in kinds.items():
            logits = torch.randn(BATCH, classes, dtype=dtype, requires_grad=True)
            told = f"logits ({BATCH}, {classes}) and {words}"
            try:
                value = subject(logits, targets)
            except Exception as error:  # a user's code may raise anything
                more = (
                    "; or leave out augment.mixup and cutmix"
                    if words.startswith("fractions")
                    else ""
                )
                raise ConfigError(f"{where}: fails on {told}: {first_line(error)}{more}") from error
            _check_value(value, where, told)


def _check_value(value: object, where: str, told: str) -> None:
    if not isinstance(value, Tensor):
        raise ConfigError(f"{where}: returns a {type(value).__name__}, not a tensor")
    if value.ndim:
        raise ConfigError(
            f"{where}: returns shape {tuple(value.shape)} for {told}; return the mean over the "
            f"images, a scalar"
        )
    if not value.requires_grad:
        raise ConfigError(f"{where}: does not depend on the logits by a gradient; nothing learns")
