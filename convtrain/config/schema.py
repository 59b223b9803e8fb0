"""Every key of the configuration: its type, its range, its unit.

The YAML under ``configs/`` gives the values, this file says which values are allowed. A field's
description completes the line an error shows; unknown keys are refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
BatchLimit = Annotated[int, Field(ge=0)] | Fraction
TIMES_AN_EPOCH = "a part of an epoch in 0.0-1.0, or a number of batches"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# --- data -----------------------------------------------------------------------------------------


class BaseData(Section):
    root: str = Field(description="folder of the dataset's files")
    download: bool = Field(description="fetch files that are missing")
    batch_size: Count = Field(description="images per optimiser step over all devices")
    eval_batch_size: Count = Field(description="images per validation and test batch")
    val_fraction: float = Field(gt=0, lt=1, description="part of the training images")
    split_seed: int = Field(ge=0, description="seed of the splits")
    limit: Count | None = Field(description="first N images of each split")
    drop_last: bool = Field(description="leave out an epoch's last, smaller batch")
    overfit_batches: Count | None = Field(description="train on the first N batches alone")
    memory_gib: float = Field(gt=0, description="GiB of decoded images kept in memory")
    shape: list[Count] = Field(
        min_length=3, max_length=3, description="channels, height and width in pixels"
    )
    num_classes: Count | None = Field(description="number of classes")
    classes: list[str] | None = Field(description="a name for each class")
    mean: list[float] = Field(description="mean of each channel, images in 0-1")
    std: list[Annotated[float, Field(gt=0)]] = Field(
        description="deviation of each channel, images in 0-1"
    )

    @model_validator(mode="after")
    def _agree(self) -> "BaseData":
        channels = self.shape[0]
        for key in ("mean", "std"):
            found = len(getattr(self, key))
            if found != channels:
                raise ValueError(
                    f"data.{key} has {found} values, data.shape={self.shape} has {channels} "
                    f"channels; give one value for each channel"
                )
        if self.classes is not None and self.num_classes not in (None, len(self.classes)):
            raise ValueError(
                f"data.num_classes={self.num_classes} does not match the "
                f"{len(self.classes)} names in data.classes"
            )
        return self


class Digits(BaseData):
    name: Literal["digits"]
    test_fraction: float = Field(gt=0, lt=1, description="part of all images")


class TorchvisionData(BaseData):
    name: Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"]


class ImageFolder(BaseData):
    name: Literal["image_folder"]
    resize: Literal["crop", "stretch"] = Field(description="how an image is brought to data.shape")
    test_fraction: float = Field(gt=0, lt=1, description="part of all images")
    max_pixels: Count = Field(description="largest image accepted, in pixels")


class Synthetic(BaseData):
    name: Literal["synthetic"]
    fill: Literal["noise", "ones"] = Field(description="what the images show")
    train_size: Count = Field(description="training and validation images")
    test_size: Count = Field(description="test images")


Data = Annotated[Digits | TorchvisionData | ImageFolder | Synthetic, Field(discriminator="name")]


# --- network and model ----------------------------------------------------------------------------


class Network(Section):
    name: str = Field(description="name of the network")
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
    style: Literal["functional", "nn"]


class TorchvisionModel(Section):
    style: Literal["torchvision"]
    name: str = Field(description="name of a torchvision classification model")


class CustomModel(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    style: Literal["custom"]
    target: str = Field(alias="_target_", description="import path of a torch.nn.Module")


Model = Annotated[DeclaredModel | TorchvisionModel | CustomModel, Field(discriminator="style")]


class Augment(Section):
    random_crop: int = Field(ge=0, description="padding on each side, in pixels")
    horizontal_flip: Fraction = Field(description="probability")
    cutout: int = Field(ge=0, description="side of the blanked square, in pixels")


# --- loss, optimiser, schedule --------------------------------------------------------------------


class CrossEntropy(Section):
    name: Literal["cross_entropy"]
    label_smoothing: Fraction = Field(description="part of the target spread over all classes")


class MultiMargin(Section):
    name: Literal["multi_margin"]
    margin: float = Field(ge=0, description="margin between the right score and the others")
    p: Literal[1, 2] = Field(description="exponent")


class PlainLoss(Section):
    name: Literal["nll", "mse", "sum"]


Loss = Annotated[CrossEntropy | MultiMargin | PlainLoss, Field(discriminator="name")]

LearningRate = Annotated[float, Field(gt=0, description="learning rate")]
WeightDecay = Annotated[float, Field(ge=0, description="weight decay")]
Epsilon = Annotated[float, Field(gt=0, description="added to the denominator")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="momentum")]
Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(Section):
    name: Literal["sgd"]
    lr: LearningRate
    momentum: Momentum
    nesterov: bool = Field(description="Nesterov momentum")
    weight_decay: WeightDecay

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "optimizer.nesterov=true needs optimizer.momentum above 0; "
                "add optimizer.nesterov=false"
            )
        return self


class Adam(Section):
    name: Literal["adam", "adamw"]
    lr: LearningRate
    betas: list[Beta] = Field(min_length=2, max_length=2, description="decay of both averages")
    eps: Epsilon
    weight_decay: WeightDecay


class RMSprop(Section):
    name: Literal["rmsprop"]
    lr: LearningRate
    alpha: float = Field(ge=0, lt=1, description="smoothing of the squared gradient")
    eps: Epsilon
    momentum: Momentum
    weight_decay: WeightDecay


Optimizer = Annotated[SGD | Adam | RMSprop, Field(discriminator="name")]

WarmUp = Annotated[float, Field(ge=0, description="epochs of linear warm-up")]
Metric = Literal["val/loss", "val/acc"]
Mode = Literal["min", "max"]


class Constant(Section):
    name: Literal["none"]
    warmup_epochs: WarmUp


class Step(Section):
    name: Literal["step"]
    step_epochs: float = Field(gt=0, description="epochs between two drops")
    gamma: float = Field(gt=0, description="factor of each drop")
    warmup_epochs: WarmUp


class Cosine(Section):
    name: Literal["cosine"]
    final_fraction: Fraction = Field(description="last learning rate as a part of optimizer.lr")
    warmup_epochs: WarmUp


class OneCycle(Section):
    name: Literal["onecycle"]
    pct_start: Fraction = Field(description="part of the training spent rising")
    div_factor: float = Field(ge=1, description="optimizer.lr / first learning rate")
    final_div_factor: float = Field(ge=1, description="first / last learning rate")
    anneal_strategy: Literal["cos", "linear"] = Field(description="shape of the two slopes")


class Plateau(Section):
    name: Literal["plateau"]
    monitor: Metric = Field(description="metric that is watched")
    mode: Mode = Field(description="whether less or more is better")
    factor: float = Field(gt=0, lt=1, description="factor of each drop")
    patience: int = Field(ge=0, description="epochs without improvement")


Scheduler = Annotated[
    Constant | Step | Cosine | OneCycle | Plateau,
    Field(discriminator="name"),
]


# --- trainer, callbacks, logger -------------------------------------------------------------------


class Trainer(Section):
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(description="kind of device")
    devices: Count | Literal["auto"] = Field(description="number of devices, or auto for all")
    strategy: Literal["auto", "ddp"] = Field(description="how several devices work together")
    num_nodes: Count = Field(description="machines")
    max_epochs: Count = Field(description="epochs")
    max_steps: Count | None = Field(description="optimiser steps")
    precision: Literal[32, "32-true", "bf16-mixed", "16-mixed", 64, "64-true"] = Field(
        description="floating-point precision"
    )
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = Field(description="largest gradient")
    gradient_clip_algorithm: Literal["norm", "value"] = Field(description="what is clipped")
    accumulate_grad_batches: Count = Field(description="batches per optimiser step")
    val_check_interval: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = Field(
        description=TIMES_AN_EPOCH
    )
    log_every_n_steps: Count = Field(description="optimiser steps between two log entries")
    deterministic: bool = Field(description="deterministic GPU kernels")
    threads: Count | None = Field(description="CPU threads for torch")
    sync_batchnorm: bool = Field(description="batch statistics over all devices")
    limit_train_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    limit_val_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    limit_test_batches: BatchLimit = Field(description=TIMES_AN_EPOCH)
    fast_dev_run: bool | Count = Field(description="one batch (or N) of each loop")
    profiler: Literal["simple", "advanced", "pytorch"] | None = Field(description="profiler")


class Sampling(Section):
    every_n_steps: Count = Field(description="optimiser steps between two samples")
    first_n_steps: int = Field(ge=0, description="optimiser steps at the start, each a sample")


class Recorder(Section):
    name: Literal["off", "norms", "stats", "full", "debug"]
    norms: Sampling | None = Field(description="when norms are recorded")
    statistics: Sampling | None = Field(description="when statistics are recorded")
    distributions: Sampling | None = Field(description="when distributions are recorded")
    tensors: Sampling | None = Field(description="when whole gradients are recorded")
    tensor_names: list[str] = Field(description="globs over parameter names")
    include: list[str] = Field(description="globs over parameter names")
    exclude: list[str] = Field(description="globs over parameter names")
    flush_every_n_steps: Count = Field(description="rows between two flushes")
    max_mib: float = Field(gt=0, description="MiB of the record on disk")
    max_overhead: float = Field(gt=0, description="share of the training time")


class Checkpoint(Section):
    monitor: Metric = Field(description="metric that names the best checkpoint")
    mode: Mode = Field(description="whether less or more is better")
    save_top_k: int = Field(ge=0, description="best checkpoints kept")
    every_n_epochs: Count = Field(description="epochs between two checkpoints")
    every_n_steps: Count | None = Field(description="optimiser steps between two checkpoints")
    every_n_minutes: Annotated[float, Field(gt=0)] | None = Field(
        description="minutes between two checkpoints"
    )
    keep_last: Count = Field(description="newest checkpoints kept")
    test_with: Literal["best", "last"] = Field(description="checkpoint of the final test")


class EarlyStopping(Section):
    monitor: Metric = Field(description="metric that is watched")
    mode: Mode = Field(description="whether less or more is better")
    patience: Count | None = Field(description="epochs without improvement")
    min_delta: float = Field(ge=0, description="smallest change that counts")


class Callbacks(Section):
    checkpoint: Checkpoint
    early_stopping: EarlyStopping
    progress_bar: bool = Field(description="show a progress bar")
    walkthrough: bool = Field(description="print the six steps of the first batch")
    custom: list[dict[str, Any]] = Field(description="Lightning callbacks with their _target_")


class Logger(Section):
    tensorboard: bool = Field(description="write TensorBoard events")
    csv: bool = Field(description="write metrics.csv")
    images: int = Field(ge=0, description="test images shown in TensorBoard")


class Config(Section):
    seed: int = Field(ge=0, lt=2**63, description="seed of weights, order, augmentation, dropout")
    resume: str | None = Field(description="run directory")
    trust: list[str] = Field(description="packages whose classes may be named by _target_")
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
