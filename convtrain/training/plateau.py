"""The plateau schedule, which lowers the learning rate when a metric no longer improves."""

from collections.abc import Mapping

import pytorch_lightning as pl
from torch.optim.lr_scheduler import ReduceLROnPlateau

from convtrain.errors import TrainingError


def step_plateau(trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
    """Step the plateau schedule, if there is one; raise TrainingError if its metric is missing.

    Lightning would step it after the epoch's checkpoint, and never in a resumed epoch.
    """
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            value = metrics.get(str(config.monitor))
            if value is None:
                raise TrainingError(
                    f"scheduler.monitor={config.monitor}: there is no such metric, because "
                    f"nothing was validated; choose another scheduler"
                )
            config.scheduler.step(value)
