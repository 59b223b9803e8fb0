"""Which of Lightning's own callbacks fit convtrain, and what to use instead of the others.

convtrain counts steps, saves and resumes by itself. A callback that trains on its own, or changes
the batch, the steps or the weights, would silently give wrong numbers.
"""

from convtrain.program import as_typed

PACKAGE = "pytorch_lightning.callbacks."

AVERAGING = ("EMAWeightAveraging", "WeightAveraging")
ALLOWED = (
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "Timer",
    *AVERAGING,
)  # fmt: skip

_BASE = "a base class, which does nothing by itself: derive a callback of your own from it"
_CHECKPOINTS = "convtrain saves by itself: see callbacks.checkpoint, such as"
_BAR = "convtrain has its own: callbacks.progress_bar=true"
_FUNCTIONS = "takes functions, which a configuration cannot hold: derive a callback of your own"
REFUSED = {
    "BackboneFinetuning": "needs a backbone in Lightning's module; type "
    "model.freeze=[backbone] model.unfreeze_at_epoch=5 instead",
    "BaseFinetuning": _BASE,
    "BasePredictionWriter": "a trained run predicts: python -m convtrain predict RUN PATHS",
    "BatchSizeFinder": "trains with batch sizes of its own: try them as a sweep, "
    "-m data.batch_size=32,64,128; python -m convtrain check --build forecasts the memory",
    "Callback": _BASE,
    "Checkpoint": _BASE,
    "EarlyStopping": "convtrain has its own: callbacks.early_stopping.patience=5",
    "GradientAccumulationScheduler": "changes the steps of an epoch while it is trained: "
    "trainer.accumulate_grad_batches=2 holds for all epochs",
    "LambdaCallback": _FUNCTIONS,
    "LearningRateFinder": "trains at learning rates of its own: try them as a sweep, "
    "-m optimizer.lr=0.01,0.03,0.1",
    "ModelCheckpoint": f"{_CHECKPOINTS} callbacks.checkpoint.save_top_k=3",
    "ModelPruning": "replaces parameters while they are trained: network.prune prunes before",
    "OnExceptionCheckpoint": f"{_CHECKPOINTS} callbacks.checkpoint.every_n_steps=100; resume=RUN",
    "ProgressBar": _BAR,
    "RichProgressBar": _BAR,
    "SpikeDetection": "waits for the device in each step: alarm=stop looks at loss and gradients",
    "StochasticWeightAveraging": "changes the learning rate and the steps of the training: "
    "EMAWeightAveraging averages weights and is resumed exactly",
    "TQDMProgressBar": _BAR,
    "ThroughputMonitor": f"{_FUNCTIONS}, or trainer.profiler=stages",
}
"""What to use instead of each."""

INHERITED = (
    "BatchSizeFinder",
    "GradientAccumulationScheduler",
    "LearningRateFinder",
    "OnExceptionCheckpoint",
    "StochasticWeightAveraging",
)
"""Classes derived from these are refused, too, because they do the same."""


def callback_refusal(target: str) -> str | None:
    """Return why one of Lightning's callbacks is refused and what to do, or None."""
    name = target.rpartition(".")[2]
    if not target.startswith(PACKAGE) or name in ALLOWED:
        return None
    instead = REFUSED.get(name, f"convtrain knows {', '.join(ALLOWED)}")
    return f"does not fit here: {as_typed(instead)}"


def base_refusal(kind: type) -> str | None:
    """Return why a class derived from one of Lightning's callbacks is refused, or None."""
    for base in kind.__mro__:
        if base.__module__.startswith(PACKAGE) and base.__name__ in INHERITED:
            instead = as_typed(REFUSED[base.__name__])
            return f"is a {base.__name__}, which does not fit here: {instead}"
    return None
