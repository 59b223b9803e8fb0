"""Lightning's loops, changed so that the weights of the last step are validated."""

from typing import Any

from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from convtrain.training.position import is_last_step


class EpochLoop(_TrainingEpochLoop):
    """Validates after ``trainer.max_steps`` as well, where Lightning ends without validation."""

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        due: bool = super()._should_check_val_fx(data_fetcher)
        return due or (self.trainer.enable_validation and is_last_step(self.trainer))


class FitLoop(_FitLoop):
    """Resumes a training whose steps are done but whose last validation was interrupted."""

    @property
    def done(self) -> bool:
        validation: Any = self.epoch_loop.val_loop.batch_progress.current
        epochs: Any = self.epoch_progress.current
        interrupted = self.restarting and validation.ready > validation.processed
        if interrupted and epochs.ready > epochs.processed and self.trainer.enable_validation:
            return False
        ended: bool = super().done
        return ended
