"""The losses that torch does not have: from logits (N, classes) to a mean over images.

Targets are int64 class indices (N,), or the fraction of each class, floats (N, classes), as mixup
makes them.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood; its ``log_softmax`` leaves log-probabilities unchanged."""
    log_probabilities = F.log_softmax(logits, dim=1)
    if targets.is_floating_point():
        return -(log_probabilities * targets).sum(1).mean()
    return F.nll_loss(log_probabilities, targets)


def mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error against the one-hot target, or against the fraction of each class."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[1])
    return F.mse_loss(logits, targets.to(logits.dtype))


def total(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the logits; it ignores the targets, and its gradients can be checked by hand."""
    return logits.sum()
