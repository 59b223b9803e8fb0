"""The six steps of training a network, as a LightningModule.

Lightning's other hooks are in :mod:`convtrain.training.hooks`.
"""

from collections.abc import Callable, Mapping

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from convtrain.data.batches import Batch
from convtrain.data.randomness import derive_seed, seed_device
from convtrain.training.epochs import epoch_steps, training_steps
from convtrain.training.freezing import Frozen
from convtrain.training.hooks import TaskHooks
from convtrain.training.losses import Loss
from convtrain.training.parts import Parts
from convtrain.training.schedules import MakeSchedule


class Task(TaskHooks):
    """Trains a network to classify images, in six steps:

    1. A network with learnable weights is defined (``__init__``).
    2. The dataset's batches are iterated (``training_step`` receives one).
    3. The network processes a batch (``forward``).
    4. The loss measures how far the logits are from the targets (``loss_and_logits``).
    5. Gradients are propagated back to the weights (``backward``).
    6. The weights are updated (``optimizer_step``), in the simplest case by
       ``weight = weight - learning_rate * gradient``.

    Args:
        model: maps images (N, channels, height, width) to logits (N, classes).
        seed: seeds everything random in a step, such as dropout.
        stop_when_lost: raise TrainingError once a logged loss and a weight are not finite.
        multi_label: an image has any number of labels.
        metrics: are computed over each validation and the test, beside loss and accuracy.
        cuda_graphs: each call of the model overwrites the output of the previous call.
        frozen: the parameters that are not trained, or not yet.
        ema: decay of an average of the weights, with which the model predicts.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Loss,
        make_optimizer: Callable[[Parts], Optimizer],
        make_schedule: MakeSchedule,
        seed: int,
        log_every_n_steps: int,
        stop_when_lost: bool = False,
        multi_label: bool = False,
        metrics: Mapping[str, Metric] | None = None,
        channels_last: bool = False,
        cuda_graphs: bool = False,
        frozen: Frozen | None = None,
        ema: float | None = None,
    ) -> None:
        # Step 1: a network with learnable weights is defined. It is self.model from here on.
        super().__init__(
            model,
            loss,
            log_every_n_steps=log_every_n_steps,
            stop_when_lost=stop_when_lost,
            multi_label=multi_label,
            frozen=frozen,
            metrics=metrics or {},
            ema=ema,
        )
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        self.seed, self.channels_last, self.cuda_graphs = seed, channels_last, cuda_graphs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Step 2: the dataset's batches are iterated. Lightning hands over one at a time.
        self.progress.enter(self.global_step + 1, self.current_epoch, batch_idx)
        loss, logits = self.loss_and_logits(batch, batch_idx)
        if batch.loss_weight:
            self.entries.running["fit"].add(loss, logits, batch.targets)
        return loss * batch.loss_weight if batch.loss_weight != 1 else loss

    def forward(self, images: Tensor) -> Tensor:
        # Step 3: the network processes a batch.
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if not self.cuda_graphs:
            return self.model(images)
        torch.compiler.cudagraph_mark_step_begin()
        return self.model(images).clone()  # the next call overwrites the output

    def loss_and_logits(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return a batch's mean loss, a scalar, and its logits (N, classes)."""
        seed_device(self.device, self.seed_of(batch_idx))
        logits = self(batch.images)
        # Step 4: the loss measures how far the logits are from the targets.
        return self.loss(logits, batch.targets), logits

    def backward(self, loss: Tensor) -> None:
        # Step 5: gradients are propagated back to the weights.
        loss.backward()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], float] | None = None,
    ) -> None:
        # Step 6: the weights are updated. The closure does steps 3 to 5 first.
        optimizer.step(closure=optimizer_closure)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.parts)
        schedule = self.make_schedule(
            optimizer=optimizer,
            total_steps=training_steps(self.trainer),
            epoch_steps=max(epoch_steps(self.trainer), 1),
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def seed_of(self, batch_idx: int) -> int:
        """Return the seed of everything random in a batch, such as dropout."""
        return derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.progress.doing = f"validation batch {batch_idx}, after "
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.progress.doing = f"test batch {batch_idx}, after "
        return self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.progress.doing = f"batch {batch_idx} of a prediction, after "
        logits: Tensor = self(batch.images)
        return logits

    def _evaluate(self, stage: str, batch: Batch) -> Tensor | None:
        if len(batch.targets):
            logits = self(batch.images)
            loss = self.loss(logits, batch.targets)
            self.entries.add_evaluated(stage, loss, logits, batch.targets)
            return logits
        if self.is_sharded:  # a device without an image still holds a shard of the weights
            self(batch.images.new_zeros(1, *batch.images.shape[1:]))
        return None
