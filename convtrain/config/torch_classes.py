"""Which of torch's optimisers and schedules do not fit convtrain, and what to use instead."""

from collections.abc import Mapping

_FUNCTIONS = "takes functions, which a configuration cannot hold: derive a schedule of your own"
_SCHEDULES = "takes schedules as objects, which a configuration cannot hold"
_BASE = "a base class, which does nothing by itself: name a class that is derived from it"

OPTIMIZERS = {
    "LBFGS": "computes the loss of a batch several times in a step, and each would count as a "
    "batch in the metrics and the gradient record: optimizer=adam",
    "Muon": "takes matrices alone: optimizer=muon reshapes filters, and has AdamW for vectors",
    "Optimizer": _BASE,
    "SparseAdam": "takes sparse gradients alone, and filters have dense ones: optimizer=adam",
}
"""Classes of torch.optim that are refused, and what to use instead."""

SCHEDULERS = {
    "ChainedScheduler": f"{_SCHEDULES}: scheduler=cosine scheduler.warmup_epochs=1 joins two, or "
    "derive a schedule of your own",
    "LambdaLR": f"{_FUNCTIONS}, or choose scheduler=linear, scheduler=polynomial or another",
    "LRScheduler": _BASE,
    "MultiplicativeLR": f"{_FUNCTIONS}, or choose scheduler=exponential",
    "SequentialLR": f"{_SCHEDULES}: scheduler=cosine scheduler.warmup_epochs=1 follows a warm-up, "
    "or derive a schedule of your own",
    "_LRScheduler": _BASE,
}
"""Classes of torch.optim.lr_scheduler that are refused, and what to use instead."""

INHERITED = ("LBFGS", "SparseAdam")
"""Classes derived from these are refused, too, because they do the same."""

PLATEAU = "ReduceLROnPlateau"


def refusal(kind: object, refused: Mapping[str, str]) -> str | None:
    """Return why a class of ``OPTIMIZERS`` or ``SCHEDULERS`` is refused and what to do, or None."""
    for base in _torchs(kind):
        if base.__name__ in refused and (base is kind or base.__name__ in INHERITED):
            return f"does not fit here: {refused[base.__name__]}"
    return None


def is_plateau(kind: object) -> bool:
    """Return whether a schedule is stepped with a metric."""
    return any(base.__name__ == PLATEAU for base in _torchs(kind))


def _torchs(kind: object) -> list[type]:
    """Return those of a class and its base classes that are torch's."""
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return [base for base in bases if f"{base.__module__}.".startswith("torch.optim.")]
