"""Lightning's hooks around the six steps of :mod:`convtrain.training.task`."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.types import LRSchedulerTypeUnion
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from convtrain.data.batches import Batches
from convtrain.errors import ConfigError, TrainingError
from convtrain.training.checkpoint_file import Checkpoint
from convtrain.training.epochs import training_epochs, training_steps
from convtrain.training.freezing import Frozen, wrap_again
from convtrain.training.log_entries import LogEntries
from convtrain.training.losses import Loss
from convtrain.training.norms import clip_gradients
from convtrain.training.parts import named_parameters, parts_of
from convtrain.training.position import Progress, saved_position
from convtrain.training.resuming import Resuming
from convtrain.training.schedules import check_length, step_plateau
from convtrain.training.sharding import gathered
from convtrain.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from typing_extensions import Self


class TaskHooks(pl.LightningModule):
    """Passes Lightning's hooks to the objects that log, save and resume."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        log_every_n_steps: int,
        stop_when_lost: bool,
        multi_label: bool,
        frozen: Frozen | None,
        metrics: Mapping[str, Metric],
        ema: float | None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.stop_when_lost = model, loss, stop_when_lost
        self.average = None if ema is None else WeightAverage(model, ema)
        self.progress = Progress()
        self.entries = LogEntries(log_every_n_steps, multi_label=multi_label, metrics=metrics)
        if isinstance(loss, nn.Module) and any(n.startswith("loss.") for n in model.state_dict()):
            raise ConfigError(
                "loss=custom: the model has a layer that is called loss as well; call it "
                "otherwise, such as loss_layer"
            )
        self.parts = parts_of(model, loss)
        self.resuming = Resuming(self.parts, self.progress, self.entries)
        self.gradient_norm: torch.Tensor | None = None  # of this step, before clipping, if known
        self.is_sharded = False
        self.frozen = frozen or Frozen(self.parts)

    def train(self, mode: bool = True) -> "Self":
        super().train(mode)
        for norm in self.frozen.norms:
            norm.eval()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets `_current_fx_name` about 40 times a step, and nn.Module.__setattr__ scans
        # the module's registries on every assignment. Plain values that exist bypass it.
        if name in self.__dict__ and not isinstance(value, torch.Tensor | nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not self.is_sharded:
            from torch.distributed.fsdp import fully_shard  # takes long to import

            assert self.device_mesh is not None
            fully_shard(self.model, mesh=self.device_mesh["data_parallel"])
            self.is_sharded = True

    def on_fit_start(self) -> None:
        if self.average is not None:
            self.average.start(self.trainer.optimizers, self.trainer.callbacks)  # type: ignore[attr-defined]

    def use_average(self, wanted: bool = True) -> None:
        """Give the model the average of its weights, if there is one, or its own weights back."""
        if self.average is not None:
            self.average.use(wanted)

    def on_validation_model_eval(self) -> None:
        super().on_validation_model_eval()
        self.use_average()

    def on_test_model_eval(self) -> None:
        super().on_test_model_eval()
        self.use_average()

    def on_train_start(self) -> None:
        self.entries.start_clock()
        self.resuming.start(self.trainer)
        check_length(self.trainer, training_steps(self.trainer))
        self.frozen.warn_if_never_due(training_epochs(self.trainer))

    def on_train_epoch_start(self) -> None:
        loader = self.trainer.train_dataloader
        if isinstance(loader, Batches):
            loader.set_epoch(self.current_epoch)
        if self.frozen.enter(self.current_epoch):
            wrap_again(self.trainer.strategy)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm, self.gradient_norm = self.gradient_norm, None
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # The optimiser unscales the gradients itself, later; Lightning refuses to clip here.
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm, norm)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        self.progress.doing = "after "
        self._log_interval_if_due()

    def on_train_epoch_end(self) -> None:
        self.progress.epochs = self.current_epoch + 1
        if not self.epoch_is_complete:
            self.resuming.end_within_epoch(self.trainer)
        if self.global_step != self.entries.logged_step:
            self._log_interval()
        self.entries.log_epoch(self, "fit", "train/{}_epoch", self.current_epoch)
        self.entries.offer_validation(self)
        if self.epoch_is_complete:
            step_plateau(self.trainer, self.entries.newest)

    @property
    def epoch_is_complete(self) -> bool:
        """Whether all batches of the epoch are done; a training may end within an epoch."""
        return self.progress.batch >= self.trainer.num_training_batches

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: object) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):  # on_train_epoch_end steps that one
            super().lr_scheduler_step(scheduler, metric)

    def _log_interval_if_due(self) -> None:
        if self.entries.is_due(self.global_step):
            self._log_interval()

    def _log_interval(self) -> None:
        loss = self.entries.log_interval(self.trainer)
        # A gradient scaler skips a step whose loss is not finite, so the weights decide.
        if self.stop_when_lost and not math.isfinite(loss):
            self.check_weights()

    def check_weights(self) -> None:
        """Raise TrainingError if a weight is not finite, which no further step can repair."""
        named = [(name, p) for name, p in named_parameters(self.parts) if p.requires_grad]
        finite = [gathered(torch.isfinite(parameter.detach()).all()) for _, parameter in named]
        if finite and not bool(torch.stack(finite).all()):
            first = next(name for (name, _), fine in zip(named, finite, strict=True) if not fine)
            raise TrainingError(
                f"{self.progress.where()}: {first} is not finite any more, and the training is "
                f"lost; checkpoints of before are kept; try a lower optimizer.lr or "
                f"trainer.gradient_clip_val=1"
            )

    def on_validation_start(self) -> None:
        self.entries.pause_clock()

    def on_validation_epoch_end(self) -> None:
        self.progress.validated = (self.current_epoch, self.progress.batch)
        self.entries.log_epoch(self, "val", "val/{}", self.current_epoch)

    def on_validation_end(self) -> None:
        self.use_average(False)  # the callbacks have seen the model that was validated
        self.entries.continue_clock()
        self.progress.doing = "after "

    def on_train_end(self) -> None:
        self.use_average()  # the training has ended, and this is its model

    def on_test_epoch_end(self) -> None:
        self.entries.log_epoch(self, "test", "test/{}", self.progress.epochs)

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._log_interval_if_due()  # the entry of a step belongs to the checkpoint of that step
        self.resuming.save(self.trainer, checkpoint)
        if self.average is not None:
            self.average.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.trainer.precision_plugin.convert_module(self)  # or float64 weights would be rounded
        self.resuming.load(self.trainer, checkpoint)
        if self.average is not None:
            self.average.load(checkpoint)
        if (position := saved_position(checkpoint)) is not None:
            # Before a strategy wraps the model, and before the gradient record lists parameters.
            self.frozen.enter(position.epoch + position.ended)
