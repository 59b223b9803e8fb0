"""The trainer: devices, duration, precision and limits."""

from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.section import PART_OR_BATCHES, BatchLimit, Count, Section


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(description="kind of device")
    devices: Count | Literal["auto"] = Field(description="number of devices, or auto for all")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(description="how devices train together")
    num_nodes: Count = Field(description="number of machines")
    max_epochs: Count = Field(description="epochs of training")
    max_steps: Count | None = Field(description="largest number of optimiser steps")
    precision: Literal[32, "32-true", "bf16-mixed", "16-mixed", 64, "64-true"] = Field(
        description="floating-point precision, in bits"
    )
    channels_last: bool | Literal["auto"] = Field(
        description="channels-last memory format of images: true, false, or auto"
    )
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = Field(
        description="mode of torch.compile for the model; the last two use CUDA graphs on a GPU"
    )
    gradient_clip_val: Annotated[float, Field(gt=0, le=1e30)] | None = Field(
        description="limit of the gradient norm or value"
    )
    gradient_clip_algorithm: Literal["norm", "value"] = Field(
        description="clip the norm of all gradients, or each value"
    )
    accumulate_grad_batches: Count = Field(description="batches per optimiser step")
    val_check_interval: Count | Annotated[float, Field(gt=0, le=1)] = Field(
        description=PART_OR_BATCHES
    )
    log_every_n_steps: Count = Field(description="optimiser steps between two log entries")
    deterministic: bool = Field(description="deterministic GPU kernels")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(description="CPU threads of torch")
    sync_batchnorm: bool = Field(description="batch norm statistics over all devices")
    limit_train_batches: BatchLimit = Field(description=PART_OR_BATCHES)
    limit_val_batches: BatchLimit = Field(description=PART_OR_BATCHES)
    limit_test_batches: BatchLimit = Field(description=PART_OR_BATCHES)
    fast_dev_run: bool | Count = Field(description="run one batch (or N batches) of each loop")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="decay of an average of the weights; the model predicts with it"
    )
    profiler: Literal["stages", "simple", "advanced", "pytorch"] | None = Field(
        description="profiler: of stages and layers, or one of Lightning's"
    )

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether the model runs as CUDA graphs, whose output the next call overwrites."""
        return self.compile in ("reduce-overhead", "max-autotune")
