"""Losses: from scores of shape (N, classes) and the answers to a mean over images.

An answer is an int64 class index, targets (N,), or a part for each class, floats (N, classes): so
mixup mixes them. ``multi_margin`` compares one right class with the others, and takes indices only.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(scores: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(scores, targets, label_smoothing=label_smoothing)


def nll(scores: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood; scores that are log-probabilities already stay as they are."""
    log_probabilities = F.log_softmax(scores, dim=1)
    if targets.is_floating_point():
        return -(log_probabilities * targets).sum(1).mean()
    return F.nll_loss(log_probabilities, targets)


def mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error against the one-hot target, or a mixture of such."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, scores.shape[1])
    return F.mse_loss(scores, targets.to(scores.dtype))


def multi_margin(scores: Tensor, targets: Tensor, *, margin: float = 1.0, p: int = 1) -> Tensor:
    return F.multi_margin_loss(scores, targets, p=p, margin=margin)


def total(scores: Tensor, targets: Tensor) -> Tensor:
    """Sum of the outputs, whatever the targets: its gradients can be checked by hand."""
    return scores.sum()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "nll": nll,
    "mse": mse,
    "multi_margin": multi_margin,
    "sum": total,
}


def make_loss(name: str, **settings: float) -> Loss:
    """Return a loss by its name in ``configs/loss``."""
    return partial(LOSSES[name], **settings)
