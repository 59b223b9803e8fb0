"""Rules between keys, and between keys and the data; the schema checks each key by itself.

The parameters of a rule are the sections that it compares. One file because adding a key means
reading all rules to see which of them apply.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

from convtrain.config.epochs import batch_count, limited
from convtrain.config.folders import read_layout
from convtrain.config.groups.augment import Augment
from convtrain.config.groups.callbacks import Callbacks
from convtrain.config.groups.data import (
    GIB,
    PUBLISHED,
    CustomData,
    Data,
    ImageFolder,
    SplitSizes,
    Synthetic,
)
from convtrain.config.groups.logger import Logger
from convtrain.config.groups.loss import CustomLoss, Focal, Loss
from convtrain.config.groups.optimizer import SGD, Optimizer
from convtrain.config.groups.scheduler import CustomScheduler, Plateau, Scheduler
from convtrain.config.groups.trainer import Trainer
from convtrain.config.lightning_callbacks import AVERAGING, callback_refusal
from convtrain.config.mistakes import MISSING, Mistake, brief
from convtrain.config.monitors import monitored, taken_names
from convtrain.config.parameter_groups import group_mistakes
from convtrain.config.schema import Config
from convtrain.config.targets import Target, unnamed
from convtrain.config.torch_losses import loss_refusal
from convtrain.errors import ConfigError, MissingDataError, closest
from convtrain.program import install

Mistakes = Iterator[Mistake]


def disagreements(sections: Mapping[str, object]) -> Mistakes:
    """Yield the mistakes that the rules find; a rule ends at a key that is itself invalid."""
    for rule in RULES:
        names = list(signature(rule).parameters)
        if sections.keys() >= set(names):
            with contextlib.suppress(AttributeError):
                yield from rule(*(sections[name] for name in names))


def check_sizes(config: Config, sizes: SplitSizes) -> None:
    """Raise ConfigError if the batches do not fit the splits that were read."""
    wrong = list(_batches_fit(config.data, config.trainer, sizes))
    if wrong:
        raise ConfigError(*(f"{key}: {text}" for key, text in wrong))


# --- data -----------------------------------------------------------------------------------------


def _channels(data: Data) -> Mistakes:
    channels = data.shape[0]
    for key in ("mean", "std"):
        if (found := len(getattr(data, key))) != channels:
            plural = "s" * (channels != 1)
            yield Mistake(
                f"data.{key}",
                f"has {found} values, data.shape={brief(data.shape)} has {channels} "
                f"channel{plural}; give one value for each channel",
            )
    if not isinstance(data, ImageFolder | CustomData):
        return
    if isinstance(data, ImageFolder) and channels not in (1, 3):
        yield Mistake("data.shape", "must have 1 channel for grey images or 3 for colour")
    if data.value_range is not None and data.value_range[0] >= data.value_range[1]:
        yield Mistake("data.value_range", "the first value becomes black and must be the smaller")


def _classes(data: Data) -> Mistakes:
    names, count = data.classes, data.num_classes
    if names is None:
        if count is None and not isinstance(data, ImageFolder):
            yield Mistake("data.num_classes", "must be given where data.classes is null")
        return
    if count not in (None, len(names)):
        yield Mistake(
            "data.num_classes",
            f"does not match the {len(names)} names in data.classes; set data.num_classes=null",
        )
    if twice := [name for name in names if names.count(name) > 1]:
        yield Mistake("data.classes", f"{brief(twice[0])} is listed more than once")


NAMES_DATA = (
    "type data._target_=mypackage.MyDataset for one dataset that is split, or "
    "data.train._target_=mypackage.MyDataset"
)


def _datasets(data: Data) -> Mistakes:
    """The datasets of data=custom are declared, and in one of the two ways."""
    if not isinstance(data, CustomData):
        return
    splits = [name for name in ("train", "val", "test") if getattr(data, name) is not None]
    if data.target is not None:
        for name in splits:
            yield Mistake(
                f"data.{name}",
                "stands beside data._target_, which is the one dataset that is split; type "
                f"data.train._target_={data.target} in its place, or leave data.{name} out",
            )
        return
    if "train" not in splits:
        key = "data.train" if splits else "data._target_"
        yield Mistake(key, f"{MISSING}; {NAMES_DATA}")
    for name in data.model_extra or {}:
        near = closest(name, CustomData.model_fields)
        key = f"data.{near}, or " if near is not None else ""
        text = f"did you mean {key}data.train.{name}, an argument of the dataset?"
        yield Mistake(f"data.{name}", f"no such key; {text}")


def _class_count(data: Data) -> tuple[str, int | None]:
    names, count = data.classes, data.num_classes
    return ("data.num_classes", count) if names is None else ("data.classes", len(names))


def _one_class(data: Data, loss: Loss) -> Mistakes:
    key, count = _class_count(data)
    if count == 1 and loss.name != "sum":
        yield Mistake(key, "is one class, so that every answer would be right; give two or more")


def _published(data: Data) -> Mistakes:
    if (known := PUBLISHED.get(data.name)) is None:
        return
    if tuple(data.shape) != known.shape:
        yield Mistake("data.shape", f"the images of {data.name} are {brief(list(known.shape))}")
    if data.name == "svhn" and find_spec("scipy") is None:
        needs = f"is read by scipy, which is not installed; {install('svhn')}"
        yield Mistake("data.name", needs)
    key, count = _class_count(data)
    if count not in (None, len(known.training)):
        yield Mistake(key, f"{data.name} has {len(known.training)} classes")


def _synthetic(data: Data) -> Mistakes:
    if not isinstance(data, Synthetic) or data.fill != "noise":
        return
    classes = data.class_count
    if data.train_size < 2 * classes:
        text = f"must be at least {2 * classes}, 2 for each of data.num_classes={classes}"
        yield Mistake("data.train_size", text)


def _memory(data: Data) -> Mistakes:
    """Only an image folder may exceed the memory; it is then read from a file."""
    if isinstance(data, Synthetic):
        images, less = data.train_size + data.test_size, "data.train_size"
    else:
        images, less = sum(data.full_sizes() or ()), "another data"
    needed = images * math.prod(data.shape) / GIB
    if needed > data.memory_gib:
        yield Mistake(
            "data.memory_gib",
            f"{images:,} images of {brief(data.shape)} take {needed:.3g} GiB; "
            f"set data.memory_gib={needed * 1.01:.3g} or more, or choose {less}",
        )


def _folder(data: Data) -> Mistakes:
    if not isinstance(data, ImageFolder) or data.classes is None:
        return
    for index, name in enumerate(data.classes):
        if name in (".", "..") or Path(name).name != name:
            yield Mistake(f"data.classes.{index}", "must be the name of a folder in data.root")
            return
    try:
        there = read_layout(Path(data.root), data.classes).folders
    except MissingDataError as error:
        yield Mistake("", str(error))
        return
    if missing := [name for name in data.classes if name not in there]:
        yield Mistake("data.classes", f"no folder for {brief(missing)}; there are {brief(there)}")


# --- data and training ----------------------------------------------------------------------------


def _known_batches(data: Data, trainer: Trainer) -> Mistakes:
    if isinstance(data, Synthetic) and [*_classes(data), *_synthetic(data)]:
        return  # its splits cannot be made
    if (sizes := data.split_sizes()) is not None:
        yield from _batches_fit(data, trainer, sizes)


def _batches_fit(data: Data, trainer: Trainer, sizes: SplitSizes) -> Mistakes:
    size = data.batch_size
    if size > sizes.train:
        why = " that data.limit leaves" if sizes.train == data.limit else ""
        yield Mistake(
            "data.batch_size",
            f"larger than the training data of {sizes.train} images{why}; "
            f"set data.batch_size={sizes.train} or less",
        )
        return
    if trainer.fast_dev_run:
        return  # it sets the limits below itself
    batches = {
        "train": batch_count(sizes.train, size, drop_last=data.drop_last),
        "val": batch_count(sizes.val, data.eval_batch_size),
        "test": batch_count(sizes.test, data.eval_batch_size),
    }
    for split, count in batches.items():
        key = f"limit_{split}_batches"
        if (limit := getattr(trainer, key)) > 0 and limited(count, limit) == 0:
            text = f"is less than one of the {count} batches; give 1 for one batch"
            yield Mistake(f"trainer.{key}", text)
    train = limited(batches["train"], trainer.limit_train_batches)
    every = trainer.val_check_interval
    if isinstance(every, int) and train and every > train:
        text = f"an epoch has {train} batches; give as many or less"
        yield Mistake("trainer.val_check_interval", text)


def _devices(data: Data, trainer: Trainer) -> Mistakes:
    count = trainer.num_nodes * (trainer.devices if isinstance(trainer.devices, int) else 1)
    if count > data.batch_size:
        yield Mistake(
            "data.batch_size",
            f"is too small for every one of {count} devices to get an image (trainer.devices="
            f"{trainer.devices}, trainer.num_nodes={trainer.num_nodes}); set {count} or more",
        )


def _sharded(trainer: Trainer) -> Mistakes:
    if trainer.strategy != "fsdp":
        return
    if trainer.accelerator in ("cpu", "mps"):
        yield Mistake("trainer.strategy", "fsdp divides a model over GPUs; type trainer=ddp_cpu")
    if trainer.channels_last is True:
        yield Mistake(
            "trainer.channels_last",
            "trainer.strategy=fsdp divides contiguous weights only; set trainer.channels_last=auto",
        )
    if trainer.precision not in (32, "32-true", "bf16-mixed"):
        yield Mistake(
            "trainer.precision",
            "trainer.strategy=fsdp trains in 32 or bf16-mixed; set trainer.precision=bf16-mixed",
        )


def _sharded_optimizer(trainer: Trainer, optimizer: Optimizer) -> Mistakes:
    if trainer.strategy == "fsdp" and optimizer.name in ("muon", "adafactor"):
        text = f"fsdp divides matrices, which optimizer={optimizer.name} needs whole; type"
        yield Mistake("trainer.strategy", f"{text} trainer=ddp")


def _cuda_graphs(trainer: Trainer) -> Mistakes:
    if trainer.uses_cuda_graphs and trainer.accumulate_grad_batches > 1:
        yield Mistake(
            "trainer.compile",
            f"leaves gradients in memory that the next batch overwrites, which rules out "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}; set it to 1, "
            f"or trainer.compile=default",
        )


def _augment(data: Data, augment: Augment) -> Mistakes:
    sides = data.shape[1:]
    if augment.random_crop >= min(sides):
        yield Mistake(
            "augment.random_crop",
            f"must be less than the {min(sides)} pixels of an image's side, "
            f"or a crop could show nothing of it",
        )
    if augment.cutout > max(sides):
        text = f"must be at most the {max(sides)} pixels of an image's side"
        yield Mistake("augment.cutout", text)


def _mixup(augment: Augment, loss: Loss) -> Mistakes:
    for key in ("mixup", "cutmix"):
        if getattr(augment, key) and not loss.takes_fractions:
            yield Mistake(
                f"augment.{key}",
                f"loss={loss.name} has no place for images of two classes; add augment.{key}=0, "
                f"or choose loss=cross_entropy, nll or mse",
            )


def _torch_loss(loss: Loss) -> Mistakes:
    if isinstance(loss, CustomLoss) and (reason := loss_refusal(loss.target)) is not None:
        yield Mistake("loss._target_", reason)


def _focal(data: Data, loss: Loss) -> Mistakes:
    if not isinstance(loss, Focal) or loss.alpha is None:
        return
    count = _class_count(data)[1]
    if isinstance(loss.alpha, list) == (loss.form == "sigmoid"):
        text = "one number, such as 0.25" if loss.form == "sigmoid" else "a weight for each class"
        yield Mistake("loss.alpha", f"is {text}, with loss.form={loss.form}")
    elif isinstance(loss.alpha, list) and count not in (None, len(loss.alpha)):
        text = f"has {len(loss.alpha)} weights, the data has {count} classes; give one for each"
        yield Mistake("loss.alpha", text)


def _custom(callbacks: Callbacks, trainer: Trainer) -> Mistakes:
    yield from unnamed(callbacks.custom, "callbacks.custom", "mypackage.MyCallback")
    for index, declared in enumerate(callbacks.custom):
        # Where another callback is invalid, this one is as it was typed.
        named = declared.target if isinstance(declared, Target) else declared.get("_target_")
        target = str(named)
        if (reason := callback_refusal(target)) is not None:
            yield Mistake(f"callbacks.custom.{index}._target_", reason)
        elif trainer.strategy == "fsdp" and target.endswith(AVERAGING):
            yield Mistake(
                f"callbacks.custom.{index}._target_",
                "cannot average weights that are divided over devices; type trainer.strategy=ddp",
            )


def _loggers(logger: Logger) -> Mistakes:
    yield from unnamed(logger.loggers, "logger.loggers", "pytorch_lightning.loggers.CSVLogger")


# --- training -------------------------------------------------------------------------------------


def _nesterov(optimizer: Optimizer) -> Mistakes:
    if isinstance(optimizer, SGD) and optimizer.nesterov and optimizer.momentum == 0:
        text = "needs optimizer.momentum above 0; add optimizer.nesterov=false"
        yield Mistake("optimizer.nesterov", text)


def _parameter_groups(optimizer: Optimizer) -> Mistakes:
    yield from group_mistakes(optimizer)


def _sharded_groups(optimizer: Optimizer, trainer: Trainer) -> Mistakes:
    if trainer.strategy != "fsdp":
        return
    for key in ("groups", "no_decay", "layer_decay"):
        if getattr(optimizer, key):
            text = "is not tested with weights that are divided over devices; type trainer=ddp"
            yield Mistake(f"optimizer.{key}", text)


def _monitors(trainer: Trainer, callbacks: Callbacks, scheduler: Scheduler) -> Mistakes:
    if trainer.limit_val_batches != 0 or trainer.fast_dev_run:
        return
    missing = "does not exist with trainer.limit_val_batches=0"
    if callbacks.early_stopping.patience is not None:
        yield Mistake(
            "callbacks.early_stopping.monitor",
            f"{missing}; validate, or set callbacks.early_stopping.patience=null",
        )
    if callbacks.checkpoint.test_with == "best":
        yield Mistake(
            "callbacks.checkpoint.test_with",
            f"needs callbacks.checkpoint.monitor, which {missing}; validate, or set "
            f"callbacks.checkpoint.test_with=last",
        )
    if isinstance(scheduler, Plateau) or (
        isinstance(scheduler, CustomScheduler) and scheduler.monitors
    ):
        yield Mistake("scheduler.monitor", f"{missing}; validate, or choose another scheduler")


def _nothing_trained(trainer: Trainer) -> Mistakes:
    if trainer.limit_train_batches == 0 and not trainer.fast_dev_run:
        text = "trains and validates nothing; give 1 for one batch"
        yield Mistake("trainer.limit_train_batches", text)


def _nothing_kept(trainer: Trainer, callbacks: Callbacks) -> Mistakes:
    kept = callbacks.checkpoint
    if kept.test_with != "best" or trainer.fast_dev_run:
        return
    last = "set callbacks.checkpoint.test_with=last"
    if kept.save_top_k == 0:
        yield Mistake("callbacks.checkpoint.save_top_k", f"keeps nothing to test; set 1, or {last}")
    if kept.every_n_epochs > trainer.max_epochs:
        yield Mistake(
            "callbacks.checkpoint.every_n_epochs",
            f"is more than trainer.max_epochs={trainer.max_epochs}, so that no best checkpoint is "
            f"kept to test; set less, or {last}",
        )


RULES: tuple[Callable[..., Mistakes], ...] = (
    _channels, _classes, _datasets, _one_class, _published, _synthetic, _memory, _folder,
    _known_batches, _devices, _sharded, _sharded_optimizer, _cuda_graphs, _augment, _mixup,
    _torch_loss, _focal, _custom, _loggers, _nesterov, _parameter_groups, _sharded_groups,
    monitored, taken_names, _monitors, _nothing_trained, _nothing_kept,
)  # fmt: skip
