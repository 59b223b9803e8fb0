"""A callback of Lightning's: code that runs at moments of the training."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class WeightNorm(Callback):
    """Log the L2 norm of all weights after each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        norms = [torch.linalg.vector_norm(weight.detach()) for weight in module.parameters()]
        # What is logged is in TensorBoard, metrics.csv, result.json and the table of a sweep.
        module.log("weight_norm", torch.linalg.vector_norm(torch.stack(norms)))
