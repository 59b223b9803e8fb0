"""The losses: from logits (N, classes) to a mean over images.

Targets are int64 class indices (N,), or floats (N, classes): the fraction of each class, as mixup
makes them, or 0 and 1 for each label of a multi-label image.

``class_weights``, floats (classes,), multiply the part of the loss that each class of a target has.
The mean divides by the number of images, not by the sum of the weights, so that batches of devices
and accumulated ones add up to the loss of all their images.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


class ClassWeighted(nn.Module):
    """A loss with class weights, floats (classes,), which move to the device with the model."""

    class_weights: Tensor

    def __init__(self, loss: Callable[..., Tensor], class_weights: Tensor) -> None:
        super().__init__()
        self.loss = loss
        # A checkpoint has none, because the configuration and the data decide on them.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits, targets, class_weights=self.class_weights)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy; a smoothed part of a target counts with the weight of its class."""
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    losses = F.cross_entropy(
        logits, targets, class_weights, reduction="none", label_smoothing=label_smoothing
    )
    return losses.mean()


def multi_margin(
    logits: Tensor, targets: Tensor, *, margin: float, p: int, class_weights: Tensor | None = None
) -> Tensor:
    """Hinge loss over all classes; torch's mean divides by the number of images, too."""
    return F.multi_margin_loss(logits, targets, p, margin, class_weights)


def nll(logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Negative log-likelihood; its ``log_softmax`` leaves log-probabilities unchanged."""
    log_probabilities = F.log_softmax(logits, dim=1)
    if targets.is_floating_point():
        if class_weights is not None:
            targets = targets * class_weights
        return -(log_probabilities * targets).sum(1).mean()
    if class_weights is None:
        return F.nll_loss(log_probabilities, targets)
    return F.nll_loss(log_probabilities, targets, class_weights, reduction="none").mean()


def mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error against the one-hot target, or against the fraction of each class."""
    return F.mse_loss(logits, as_floats(targets, logits))


def bce(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of each class, whose probability is the sigmoid of its logit.

    The mean over images and classes. ``label_smoothing`` moves a part ``s`` of each target to
    ``s / classes``, as torch's ``cross_entropy`` does. ``class_weights`` are torch's
    ``pos_weight``: they multiply the loss of the classes that an image has.
    """
    wanted = as_floats(targets, logits)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=class_weights)


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    form: Literal["softmax", "sigmoid"],
    alpha: float | Sequence[float] | None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p being the probability of the answer (Lin et al., 2017).

    ``softmax`` takes the probabilities of the classes of an image together: the mean over images.
    ``sigmoid`` takes each class by itself, as the paper does: the mean over images and classes.
    A fraction of a class counts that part of its loss.

    Args:
        alpha: for ``softmax`` a weight for each class; for ``sigmoid`` the weight of the classes
            that an image has, and ``1 - alpha`` of those that it has not.
        class_weights: in place of ``alpha``, a weight for each class that an image has.
    """
    wanted = as_floats(targets, logits)
    if form == "softmax":
        log_p = F.log_softmax(logits, dim=1)
        # At least the smallest number, because the gradient of 0^gamma may not be finite.
        others = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).tiny)
        losses = -wanted * others**gamma * log_p
        if alpha is not None:
            losses = losses * torch.as_tensor(alpha, dtype=losses.dtype, device=losses.device)
        if class_weights is not None:
            losses = losses * class_weights
        return losses.sum(1).mean()
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    has = -wanted * torch.exp(gamma * log_q) * log_p
    lacks = -(1 - wanted) * torch.exp(gamma * log_p) * log_q
    if class_weights is not None:
        has = has * class_weights
    if alpha is None:
        return (has + lacks).mean()
    assert isinstance(alpha, float | int)
    return (alpha * has + (1 - alpha) * lacks).mean()


def as_floats(targets: Tensor, logits: Tensor) -> Tensor:
    """Return class indices as one-hot rows in the logits' dtype; other targets as they are."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[1])
    return targets.to(logits.dtype)


def total(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the logits; it ignores the targets, and its gradients can be checked by hand."""
    return logits.sum()
