"""The task: the six steps of training, as a LightningModule."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from convtrain.data.batches import Batch, Batches
from convtrain.data.randomness import derive_seed, seed_device
from convtrain.errors import TrainingError
from convtrain.models.compiled import replayed
from convtrain.training import resuming
from convtrain.training.epochs import epoch_steps, training_steps
from convtrain.training.losses import Loss
from convtrain.training.norms import clip_gradients
from convtrain.training.optimizers import MakeOptimizer
from convtrain.training.resuming import Progress
from convtrain.training.running_metrics import RunningMetrics, means
from convtrain.training.schedules import MakeSchedule
from convtrain.training.sharding import gathered

STAGES = {"val": "validation", "test": "test"}


class Task(pl.LightningModule):
    """Learning to classify images, in six steps:

    1. a network with learnable weights is defined (``__init__``);
    2. the dataset's batches are iterated (``training_step`` gets one);
    3. the network processes a batch (``forward``);
    4. the loss tells how far its output is from the answer (``training_step``);
    5. gradients are propagated back to the weights (``backward``);
    6. the weights are updated (``optimizer_step``), in the simplest case
       ``weight = weight - learning_rate * gradient``.

    Args:
        model: from images (N, channels, height, width) to scores (N, classes).
        loss: from scores and targets to a scalar.
        make_optimizer: from parameters to an optimiser.
        make_schedule: from an optimiser and the numbers of steps to a schedule.
        seed: of everything random in a step, such as dropout.
        log_every_n_steps: optimiser steps between two log entries.
        stop_when_lost: end the training once a logged loss and the weights are not finite.
        channels_last: the order in memory of the images, which is that of the model's weights.
        cuda_graphs: a call of the model overwrites what the last one has returned.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Loss,
        make_optimizer: MakeOptimizer,
        make_schedule: MakeSchedule,
        seed: int,
        log_every_n_steps: int,
        stop_when_lost: bool = False,
        channels_last: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        self.model = model  # step 1
        self.loss = loss
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        self.seed, self.log_every_n_steps = seed, log_every_n_steps
        self.stop_when_lost, self.channels_last = stop_when_lost, channels_last
        self.cuda_graphs = cuda_graphs
        self.run_id: str | None = None  # which its checkpoints carry; known to rank 0, which saves
        self.totals = {stage: RunningMetrics() for stage in ("fit", "val", "test")}
        self.metrics: dict[str, float] = {}
        self.images_seen, self.train_seconds, self.epochs = 0.0, 0.0, 0
        self.data_seconds = 0.0  # of these, spent on making batches
        self._divided = False
        self.gradient_norm: Tensor | None = None  # of this step, where it is known before clipping
        self._logged_time = time.perf_counter()
        self._paused_time = 0.0
        self.progress = Progress()
        self._resumed: dict[str, Any] = {}  # from a checkpoint, until it is taken up

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes each hook in an attribute, forty times a step; torch's way of setting one
        # looks for tensors and modules each time.
        if name in self.__dict__ and not isinstance(value, Tensor | nn.Module):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # --- the six steps ----------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return replayed(self.model, images) if self.cuda_graphs else self.model(images)  # step 3

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # step 2 hands over a batch
        self.progress.doing, self.progress.batch = "", batch_idx + 1
        self.progress.at = (self.global_step + 1, self.current_epoch, batch_idx)
        loss, scores = self.loss_and_scores(batch, batch_idx)
        if batch.loss_weight:
            self.totals["fit"].add(loss, scores, batch.targets)
        return loss * batch.loss_weight if batch.loss_weight != 1 else loss

    def loss_and_scores(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Process a batch; return its loss, a scalar, and the scores (N, classes)."""
        seed_device(self.device, self.seed_of(batch_idx))
        scores = self(batch.images)
        return self.loss(scores, batch.targets), scores  # step 4

    def seed_of(self, batch_idx: int) -> int:
        """Return the seed of all that is random in a batch, such as dropout."""
        return derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # step 5

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        optimizer.step(closure=optimizer_closure)  # step 6

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm, self.gradient_norm = self.gradient_norm, None
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if scaler is not None and fused:  # which unscales by itself, later
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm, norm)

    def configure_model(self) -> None:
        """Divide the weights over the devices, where ``trainer.strategy=fsdp``."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not self._divided:
            from torch.distributed.fsdp import fully_shard  # takes long to import

            assert self.device_mesh is not None
            fully_shard(self.model, mesh=self.device_mesh["data_parallel"])
            self._divided = True

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(p for p in self.model.parameters() if p.requires_grad)
        schedule = self.make_schedule(
            optimizer, training_steps(self.trainer), max(epoch_steps(self.trainer), 1)
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    # --- evaluation -------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self, stage: str, batch: Batch, batch_idx: int) -> None:
        self.progress.doing = f"{STAGES[stage]} batch {batch_idx}, after "
        # With several devices one may get nothing of a small last batch, and must take part where
        # the model is divided over them.
        if len(batch.targets):
            scores = self(batch.images)
            self.totals[stage].add(self.loss(scores, batch.targets), scores, batch.targets)
        elif self._divided:
            self(batch.images.new_zeros(1, *batch.images.shape[1:]))

    # --- epochs, and what is logged ---------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._logged_time = time.perf_counter()

    def on_train_start(self) -> None:
        if self._resumed:
            resuming.go_on(self, self._resumed)
            self._resumed = {}

    def on_train_epoch_start(self) -> None:
        loader = self.trainer.train_dataloader
        if isinstance(loader, Batches):
            loader.set_epoch(self.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.progress.doing = "after "
        self._log_if_due()

    def on_train_epoch_end(self) -> None:
        self.epochs = self.current_epoch + 1
        # The training ends within the epoch; one that is made longer has it before itself again.
        if not self.epoch_is_complete:
            self.progress.cut = resuming.kept(self)
        if self.global_step != self.progress.logged_step:
            self._log_interval(self.global_step)
        self._log_epoch("fit", "train/{}_epoch")
        self._offer_validation()
        if self.epoch_is_complete:
            self._step_plateau()

    @property
    def epoch_is_complete(self) -> bool:
        """Whether all batches of the epoch are done; a training may end within one."""
        return self.progress.batch >= self.trainer.num_training_batches

    def _offer_validation(self) -> None:
        """Give callbacks the last validation's metrics, where it was before the run was resumed."""
        known = self.trainer.callback_metrics
        values = {k: v for k, v in self.metrics.items() if k.startswith("val/") and k not in known}
        self.log_dict(values, logger=False, sync_dist=True, batch_size=1)

    def _step_plateau(self) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                value = self.metrics.get(str(config.monitor))
                if value is None:
                    raise TrainingError(
                        f"scheduler.monitor={config.monitor}: there is no such metric, because "
                        f"nothing was validated; choose another scheduler"
                    )
                config.scheduler.step(value)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # Lightning would do it after the epoch's checkpoint, and not at all in a resumed epoch.
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_end(self) -> None:
        loader = self.trainer.train_dataloader
        self.data_seconds = loader.seconds if isinstance(loader, Batches) else 0.0

    def on_validation_start(self) -> None:
        self._paused_time = time.perf_counter()

    def on_validation_end(self) -> None:
        self._logged_time += time.perf_counter() - self._paused_time
        self.progress.doing = "after "

    def on_validation_epoch_end(self) -> None:
        self.progress.validated = (self.current_epoch, self.progress.batch)
        self._log_epoch("val", "val/{}")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", "test/{}")

    def _log_if_due(self) -> None:
        step = self.global_step
        if step != self.progress.logged_step and step % self.log_every_n_steps == 0:
            self._log_interval(step)

    def _log_interval(self, step: int) -> None:
        """Log loss and accuracy since the last entry, learning rate and speed."""
        sums = self.over_devices(self.totals["fit"].since_mark())
        loss, accuracy = means(sums)
        images, seconds = float(sums[2]), time.perf_counter() - self._logged_time
        self.images_seen += images
        self.train_seconds += seconds
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer | pl.core.optimizer.LightningOptimizer)
        self._log(
            {
                "train/loss": loss,
                "train/acc": accuracy,
                "lr": optimizer.param_groups[0]["lr"],
                "images_per_second": images / seconds,
            },
            step,
        )
        self.progress.logged_step, self._logged_time = step, time.perf_counter()
        if self.stop_when_lost and not math.isfinite(loss):
            self.check_weights()  # after a step that a scaler has skipped they are as they were

    def check_weights(self) -> None:
        """Raise TrainingError if a weight is not finite: no training mends it, so it is over."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        finite = [gathered(torch.isfinite(parameter.detach()).all()) for _, parameter in named]
        if finite and not bool(torch.stack(finite).all()):
            first = next(name for (name, _), fine in zip(named, finite, strict=True) if not fine)
            where = self.progress.where()
            raise TrainingError(
                f"{where}: {first} is not finite any more, and the training is lost; "
                f"checkpoints of before are kept; try a lower optimizer.lr or "
                f"trainer.gradient_clip_val=1"
            )

    def _log_epoch(self, stage: str, name: str) -> None:
        totals = self.totals[stage]
        loss, accuracy = means(self.over_devices(totals.sums))
        totals.reset()
        values = {name.format("loss"): loss, name.format("acc"): accuracy}
        # For callbacks that monitor a value; every device already has the same one.
        self.log_dict(values, logger=False, sync_dist=True, batch_size=1)
        epoch = self.epochs if stage == "test" else self.current_epoch
        self._log({**values, "epoch": float(epoch)}, self.global_step)

    def _log(self, values: dict[str, float], step: int) -> None:
        if self.trainer.sanity_checking:
            return
        self.metrics.update(values)
        for logger in self.loggers:
            logger.log_metrics(values, step=step)

    def over_devices(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return sums
        return self.trainer.strategy.reduce(sums.to(self.device, copy=True), reduce_op="sum")

    # --- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._log_if_due()  # what is logged of a step belongs to its checkpoint
        resuming.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = resuming.load(self, checkpoint)
