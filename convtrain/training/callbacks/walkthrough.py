"""Print the six steps of one batch with every tensor, for the worked examples and tiny networks."""

from contextlib import ExitStack

import pytorch_lightning as pl
import torch
from torch import Tensor

from convtrain.data.batches import Batch
from convtrain.models.observe import observe_outputs
from convtrain.training.log_entries import learning_rates
from convtrain.training.loggers.tensorboard import tensorboard_of
from convtrain.training.parts import named_parameters
from convtrain.training.task import Task

MAX_VALUES = 1000  # torch abbreviates tensors with more values


class Walkthrough(pl.Callback):
    """Writes every tensor of the first batch to the terminal and to TensorBoard, step by step."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._observing = ExitStack()
        self._batch: Batch | None = None
        self._before: dict[str, Tensor] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step or batch_idx or not isinstance(pl_module, Task):
            return
        self._batch = batch
        batch.images.requires_grad_(True)
        self.lines.append("1. A network with learnable weights is defined.")
        for name, parameter in named_parameters(pl_module.parts):
            self._show(f"   {name}", parameter)
            self._before[name] = parameter.detach().clone()
        self.lines.append("2. The dataset's batches are iterated; this is the first one.")
        self._show("   input", batch.images)
        self.lines.append("3. The network processes it.")
        self._observing.enter_context(observe_outputs(pl_module.model, self._show_output))

    def _show_output(self, name: str, output: Tensor) -> None:
        self._show(f"   output of {name}", output)
        self.lines.append(f"   grad_fn of {name}: {type(output.grad_fn).__name__}")

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if self._batch is None:
            return
        self._observing.close()
        self.lines.append("4. The loss tells how far the output is from the answer.")
        self._show("   loss", loss)
        self.lines.append(f"   grad_fn of the loss: {type(loss.grad_fn).__name__}")
        self.lines.append(f"   gradient of the input before backward(): {self._batch.images.grad}")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._batch is None or not isinstance(pl_module, Task):
            return
        self.lines.append("5. Gradients are propagated back.")
        self._show("   gradient of the input", self._batch.images.grad)
        for name, parameter in named_parameters(pl_module.parts):
            self._show(f"   gradient of {name}", parameter.grad)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self._batch is None or not isinstance(pl_module, Task):
            return
        self._batch = None
        rates = learning_rates(trainer.optimizers[0])
        others = "".join(f", {name} {rate:g}" for name, rate in rates.items() if name != "lr")
        self.lines.append(
            f"6. The weights are updated; the learning rate is {rates['lr']:g}{others}."
        )
        for name, parameter in named_parameters(pl_module.parts):
            self._show(f"   {name} before", self._before[name])
            self._show(f"   {name} after", parameter)
        text = "\n".join(self.lines)
        if trainer.is_global_zero:
            print(text)
        if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
            tensorboard.log_text("walkthrough", text, trainer.global_step)

    def _show(self, what: str, value: Tensor | None) -> None:
        if value is None:
            self.lines.append(f"{what}: {value}")
            return
        detached = value.detach().cpu()
        torch.set_printoptions(precision=6, threshold=MAX_VALUES)
        text = str(detached.item()) if detached.ndim == 0 else str(detached)
        torch.set_printoptions(profile="default")
        indented = text.replace("\n", "\n      ")
        self.lines.append(f"{what}, shape {tuple(value.shape)}:\n      {indented}")
