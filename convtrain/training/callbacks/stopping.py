"""Early stopping, and why a training ended before its last epoch."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping
from torch import Tensor

from convtrain.config.metrics import not_logged
from convtrain.errors import ConfigError
from convtrain.training.task import Task


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, whose patience counts epochs by their last validation."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module, Task) or pl_module.epoch_is_complete:
            super().on_train_epoch_end(trainer, pl_module)

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.monitor not in logs:
            key = "callbacks.early_stopping.monitor"
            raise ConfigError(not_logged(key, self.monitor, logs))
        return super()._validate_condition_metric(logs)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def why(self) -> str | None:
        """Return why it ended the training, if it did."""
        if self.stopping_reason_message is None:
            return None
        if self.wait_count < self.patience:
            return f"{self.monitor} is not finite any more"
        epochs = f"{self.wait_count} epoch{'s' * (self.wait_count > 1)}"
        return (
            f"{self.monitor} has not improved on {float(self.best_score):.4g} for {epochs} "
            f"(callbacks.early_stopping.patience={self.patience})"
        )


def why_early(trainer: pl.Trainer, epochs: int) -> str | None:
    """Return why a training ended before its last epoch, if it did."""
    stopping = trainer.early_stopping_callback
    if isinstance(stopping, EarlyStopping) and (why := stopping.why()):
        return why
    if trainer.global_step == trainer.max_steps:
        return f"trainer.max_steps={trainer.max_steps} was reached"
    if epochs < (trainer.max_epochs or 0) and trainer.limit_train_batches:
        return "a callback has stopped it"
    return None
