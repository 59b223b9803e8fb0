"""Every key of the configuration: its type, its range, its unit.

The YAML under ``configs/`` gives the values, this file says which values are allowed. A field's
description completes the line an error shows; unknown keys are refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from convtrain.config.groups.data import Data
from convtrain.config.section import (
    TIMES_AN_EPOCH,
    BatchLimit,
    Count,
    FileName,
    Fraction,
    Section,
    Seed,
    Text,
    Whole,
)

# --- network and model ----------------------------------------------------------------------------


class Network(Section):
    name: FileName = Field(
        description="name of the network and of its runs' folder: letters, digits, _ + - ."
    )
    layers: list[Any] = Field(min_length=1, description="layers, each named by its torch.nn class")
    blocks: dict[str, Any] = Field(
        default_factory=dict, description="name of a block: its layers, and what it takes"
    )
    init: dict[str, Any] = Field(
        description="parameter name pattern: function of torch.nn.init, with arguments"
    )
    parametrize: dict[str, Any] = Field(
        default={}, description="parameter name pattern: weight_norm, spectral_norm or orthogonal"
    )
    prune: dict[str, Any] = Field(
        default={}, description="parameter name pattern: function of torch.nn.utils.prune"
    )


class DeclaredModel(Section):
    style: Literal["functional", "nn"] = Field(description="how weights are held")


class TorchvisionModel(Section):
    style: Literal["torchvision"] = Field(description="how weights are held")
    name: FileName = Field(description="name of a torchvision classification model")


class CustomModel(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    style: Literal["custom"] = Field(description="how weights are held")
    target: str = Field(alias="_target_", description="import path of a torch.nn.Module")


Model = Annotated[DeclaredModel | TorchvisionModel | CustomModel, Field(discriminator="style")]


class Augment(Section):
    random_crop: Whole = Field(description="padding on each side, in pixels; 0 is off")
    padding_mode: Literal["constant", "reflect"] = Field(
        description="what is around an image that is cropped: black, or its mirror image"
    )
    horizontal_flip: Fraction = Field(description="probability; 0 is off")
    flip_alternates: bool = Field(description="flip in regular turns, not by chance")
    cutout: Whole = Field(description="side of the blanked square, in pixels; 0 is off")
    mixup: float = Field(
        ge=0, le=1000, description="alpha of Beta(alpha, alpha), the part of each image; 0 is off"
    )


# --- loss, optimiser, schedule --------------------------------------------------------------------


class CrossEntropy(Section):
    name: Literal["cross_entropy"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class MultiMargin(Section):
    name: Literal["multi_margin"] = Field(description="loss function")
    margin: float = Field(
        ge=0, le=1e6, description="margin between the right score and the others, in scores"
    )
    p: int = Field(ge=1, le=2, description="exponent of the margin")


class PlainLoss(Section):
    name: Literal["nll", "mse", "sum"] = Field(description="loss function")


Loss = Annotated[CrossEntropy | MultiMargin | PlainLoss, Field(discriminator="name")]

LearningRate = Annotated[
    float, Field(gt=0, le=1e6, description="learning rate, a factor of the gradient")
]
WeightDecay = Annotated[
    float, Field(ge=0, le=1e6, description="weight decay, a factor of the weights")
]
Epsilon = Annotated[
    float, Field(ge=1e-30, le=1e6, description="added to the denominator, in units of the gradient")
]
Momentum = Annotated[
    float, Field(ge=0, lt=1, description="momentum, the part of a step kept for the next")
]
Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(Section):
    name: Literal["sgd"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    momentum: Momentum
    nesterov: bool = Field(description="Nesterov momentum")
    weight_decay: WeightDecay


class Adam(Section):
    name: Literal["adam", "adamw"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    betas: list[Beta] = Field(
        min_length=2, max_length=2, description="decay of both averages per step, 0-1"
    )
    eps: Epsilon
    weight_decay: WeightDecay


class RMSprop(Section):
    name: Literal["rmsprop"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    alpha: float = Field(
        ge=0, lt=1, description="decay of the squared gradient's average per step, 0-1"
    )
    eps: Epsilon
    momentum: Momentum
    weight_decay: WeightDecay


Optimizer = Annotated[SGD | Adam | RMSprop, Field(discriminator="name")]

WarmUp = Annotated[float, Field(ge=0, le=1e9, description="epochs of linear warm-up")]
Metric = Literal["val/loss", "val/acc"]
Mode = Literal["auto", "min", "max"]


class Constant(Section):
    name: Literal["none"] = Field(description="course of the learning rate")
    warmup_epochs: WarmUp


class Step(Section):
    name: Literal["step"] = Field(description="course of the learning rate")
    step_epochs: float = Field(gt=0, le=1e9, description="epochs between two drops")
    gamma: float = Field(gt=0, le=1, description="factor of the learning rate at each drop")
    warmup_epochs: WarmUp


class Cosine(Section):
    name: Literal["cosine"] = Field(description="course of the learning rate")
    final_fraction: Fraction = Field(
        description="last learning rate as a part of optimizer.lr, 0-1"
    )
    warmup_epochs: WarmUp


class OneCycle(Section):
    name: Literal["onecycle"] = Field(description="course of the learning rate")
    pct_start: Fraction = Field(description="part of the training spent rising, 0-1")
    div_factor: float = Field(
        ge=1, le=1e12, description="factor from the first learning rate to optimizer.lr"
    )
    final_div_factor: float = Field(
        ge=1, le=1e12, description="factor from the last learning rate to the first"
    )
    anneal_strategy: Literal["cos", "linear"] = Field(description="shape of the two slopes")


class Plateau(Section):
    name: Literal["plateau"] = Field(description="course of the learning rate")
    monitor: Metric = Field(description="metric that is watched")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    factor: float = Field(gt=0, lt=1, description="factor of the learning rate at each drop")
    patience: Whole = Field(description="epochs without improvement")


Scheduler = Annotated[
    Constant | Step | Cosine | OneCycle | Plateau,
    Field(discriminator="name"),
]


# --- trainer, callbacks, logger -------------------------------------------------------------------


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(description="kind of device")
    devices: Count | Literal["auto"] = Field(description="number of devices, or auto for all")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        description="how several devices work together"
    )
    num_nodes: Count = Field(description="number of machines")
    max_epochs: Count = Field(description="epochs of training")
    max_steps: Count | None = Field(description="optimiser steps at most")
    precision: Literal[32, "32-true", "bf16-mixed", "16-mixed", 64, "64-true"] = Field(
        description="floating-point precision, in bits"
    )
    channels_last: bool | Literal["auto"] = Field(
        description="order of images in memory: true, false, or auto"
    )
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = Field(
        description="mode of torch.compile for the model; the last two use CUDA graphs on a GPU"
    )
    gradient_clip_val: Annotated[float, Field(gt=0, le=1e30)] | None = Field(
        description="largest gradient norm or value"
    )
    gradient_clip_algorithm: Literal["norm", "value"] = Field(description="what is clipped")
    accumulate_grad_batches: Count = Field(description="batches per optimiser step")
    val_check_interval: Count | Annotated[float, Field(gt=0, le=1)] = Field(
        description=TIMES_AN_EPOCH
    )
    log_every_n_steps: Count = Field(description="optimiser steps between two log entries")
    deterministic: bool = Field(description="deterministic GPU kernels")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        description="number of CPU threads for torch"
    )
    sync_batchnorm: bool = Field(description="batch statistics over all devices")
    limit_train_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    limit_val_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    limit_test_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    fast_dev_run: bool | Count = Field(description="one batch (or N batches) of each loop")
    profiler: Literal["stages", "simple", "advanced", "pytorch"] | None = Field(
        description="where the time goes, by stage and layer or by one of Lightning's profilers"
    )

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether a GPU replays the model, in memory that each replay overwrites."""
        return self.compile in ("reduce-overhead", "max-autotune")


class Sampling(Section):
    every_n_steps: Count = Field(description="optimiser steps between two samples")
    first_n_steps: Whole = Field(description="optimiser steps at the start, each a sample")


class Recorder(Section):
    name: Literal["off", "norms", "stats", "full", "debug"] = Field(
        description="how much is recorded of the gradients"
    )
    norms: Sampling | None = Field(description="when norms are recorded")
    statistics: Sampling | None = Field(description="when statistics are recorded")
    distributions: Sampling | None = Field(description="when distributions are recorded")
    tensors: Sampling | None = Field(description="when whole gradients are recorded")
    tensor_names: list[Text] = Field(description="globs over parameter names")
    include: list[Text] = Field(description="globs over parameter names")
    exclude: list[Text] = Field(description="globs over parameter names")
    flush_every_n_steps: Count = Field(description="steps recorded between two writes")
    max_mib: float = Field(gt=0, le=1e9, description="MiB of the record on disk")
    max_overhead: float = Field(gt=0, le=1, description="part of the training time")


class Checkpoint(Section):
    monitor: Metric = Field(description="metric that names the best checkpoint")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    save_top_k: Whole = Field(description="number of best checkpoints kept")
    every_n_epochs: Count = Field(description="epochs between two checkpoints")
    every_n_steps: Count | None = Field(description="optimiser steps between two checkpoints")
    every_n_minutes: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        description="minutes between two checkpoints"
    )
    keep_last: Count = Field(description="number of newest checkpoints kept")
    test_with: Literal["best", "last"] = Field(description="checkpoint of the final test")


class EarlyStopping(Section):
    monitor: Metric = Field(description="metric that is watched")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    patience: Count | None = Field(description="epochs without improvement")
    min_delta: float = Field(
        ge=0, le=1e9, description="smallest change that counts, in units of the metric"
    )


class Callbacks(Section):
    checkpoint: Checkpoint
    early_stopping: EarlyStopping
    progress_bar: bool = Field(description="show a progress bar")
    walkthrough: bool = Field(description="print the six steps of the first batch")
    custom: list[dict[str, Any]] = Field(description="Lightning callbacks with their _target_")


class Logger(Section):
    tensorboard: bool = Field(description="write TensorBoard events")
    csv: bool = Field(description="write metrics.csv")
    images: Annotated[int, Field(ge=0, le=1024)] = Field(
        description="test images shown in TensorBoard"
    )


class Sweep(Section):
    metric: Metric = Field(default="val/acc", description="metric that ranks the jobs")
    fail_fast: bool = Field(default=False, description="start no job once one has failed")
    retry_failed: bool = Field(default=False, description="try again what failed before")
    gpus: Annotated[list[Whole | Text], Field(min_length=1)] | Literal["auto"] | None = Field(
        default=None,
        description="devices, by number or name, that jobs take turns at",
    )


class Config(Section):
    seed: Seed = Field(description="seed of weights, order, augmentation, dropout")
    resume: Text | None = Field(description="directory of the run that goes on")
    trust: list[Text] = Field(description="packages whose classes may be named by _target_")
    data: Data
    network: Network
    model: Model
    augment: Augment
    loss: Loss
    optimizer: Optimizer
    scheduler: Scheduler
    recorder: Recorder
    alarm: Literal["warn", "stop", "checkpoint", "off"] = Field(
        description="what is done when gradients are in trouble"
    )
    trainer: Trainer
    callbacks: Callbacks
    logger: Logger
    sweep: Sweep = Sweep()

    @property
    def model_name(self) -> str:
        """The model's name: of the network, of torchvision's model, or of the user's class."""
        if isinstance(self.model, CustomModel):
            return self.model.target.rpartition(".")[2]
        return self.model.name if isinstance(self.model, TorchvisionModel) else self.network.name
