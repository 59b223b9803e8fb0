"""What keys must agree on with one another and with the data, where each alone is in its range."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convtrain.config.epochs import batch_count, limited
from convtrain.config.folders import read_layout
from convtrain.config.groups.augment import Augment
from convtrain.config.groups.callbacks import Callbacks
from convtrain.config.groups.data import PUBLISHED, Data, ImageFolder, SplitSizes, Synthetic
from convtrain.config.groups.loss import Loss
from convtrain.config.groups.optimizer import SGD, Optimizer
from convtrain.config.groups.scheduler import Plateau, Scheduler
from convtrain.config.groups.trainer import Trainer
from convtrain.config.lightning_callbacks import AVERAGING, callback_refusal
from convtrain.config.messages import Mistake, brief
from convtrain.config.metrics import mode_of
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, MissingDataError

GIB = 1 << 30


def disagreements(sections: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what does not fit together, as far as it can be told.

    Args:
        sections: by name; one may lack keys that are wrong by themselves. Rules that ask for one of
            these say no more.
    """
    for rule, names in RULES:
        if all(name in sections for name in names):
            with contextlib.suppress(AttributeError):
                yield from rule(*(sections[name] for name in names))


def check_sizes(config: Config, sizes: SplitSizes) -> None:
    """Raise ConfigError where batches do not fit the splits, once these have been read."""
    wrong = list(_batches_fit(config.data, config.trainer, sizes))
    if wrong:
        raise ConfigError(*(f"{key}: {text}" for key, text in wrong))


# --- data -----------------------------------------------------------------------------------------


def _channels(data: Data) -> Iterator[Mistake]:
    channels = data.shape[0]
    for key in ("mean", "std"):
        if (found := len(getattr(data, key))) != channels:
            yield Mistake(
                f"data.{key}",
                f"has {found} values, data.shape={brief(data.shape)} has "
                f"{channels} channel{'s' * (channels != 1)}; give one value for each channel",
            )
    if not isinstance(data, ImageFolder):
        return
    if channels not in (1, 3):
        yield Mistake("data.shape", "must have 1 channel for grey images or 3 for colour")
    if data.value_range is not None and data.value_range[0] >= data.value_range[1]:
        yield Mistake("data.value_range", "the first value becomes black and must be the smaller")


def _classes(data: Data) -> Iterator[Mistake]:
    names, count = data.classes, data.num_classes
    if names is not None and count not in (None, len(names)):
        yield Mistake(
            "data.num_classes",
            f"does not match the {len(names)} names in data.classes; set data.num_classes=null",
        )
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        yield Mistake("data.classes", f"{brief(twice)} stands there more than once")
    if names is None and count is None and not isinstance(data, ImageFolder):
        yield Mistake("data.num_classes", "must be given where data.classes is null")


def _one_class(data: Data, loss: Loss) -> Iterator[Mistake]:
    names, count = data.classes, data.num_classes
    if (count if names is None else len(names)) == 1 and loss.name != "sum":
        yield Mistake(
            "data.num_classes" if names is None else "data.classes",
            "is one class, so that every answer would be right; give two or more",
        )


def _published(data: Data) -> Iterator[Mistake]:
    if (known := PUBLISHED.get(data.name)) is None:
        return
    if tuple(data.shape) != known.shape:
        yield Mistake("data.shape", f"the images of {data.name} are {brief(list(known.shape))}")
    classes = len(known.training)
    key = "num_classes" if data.classes is None else "classes"
    if (data.num_classes if data.classes is None else len(data.classes)) not in (None, classes):
        yield Mistake(f"data.{key}", f"{data.name} has {classes} classes")


def _synthetic(data: Data) -> Iterator[Mistake]:
    if not isinstance(data, Synthetic):
        return
    classes = data.class_count
    if data.fill == "noise" and data.train_size < 2 * classes:
        yield Mistake(
            "data.train_size",
            f"must be at least {2 * classes}, 2 for each of data.num_classes={classes}",
        )


def _memory(data: Data) -> Iterator[Mistake]:
    """Only an image folder is read from a file where it is too large for the memory."""
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


def _folder(data: Data) -> Iterator[Mistake]:
    """Class names become the names of folders, so they must be names and the folders be there."""
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
    missing = [name for name in data.classes if name not in there]
    if missing:
        yield Mistake("data.classes", f"no folder for {brief(missing)}; there are {brief(there)}")


# --- data and training ----------------------------------------------------------------------------


def _known_batches(data: Data, trainer: Trainer) -> Iterator[Mistake]:
    wrong_already = isinstance(data, Synthetic) and any(
        True for rule in (_classes, _synthetic) for _ in rule(data)
    )
    if not wrong_already and (sizes := data.split_sizes()) is not None:
        yield from _batches_fit(data, trainer, sizes)


def _batches_fit(data: Data, trainer: Trainer, sizes: SplitSizes) -> Iterator[Mistake]:
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
        limit = getattr(trainer, f"limit_{split}_batches")
        if limit > 0 and limited(count, limit) == 0:
            yield Mistake(
                f"trainer.limit_{split}_batches",
                f"is less than one of the {count} batches; give 1 for one batch",
            )
    train = limited(batches["train"], trainer.limit_train_batches)
    every = trainer.val_check_interval
    if isinstance(every, int) and train and every > train:
        yield Mistake(
            "trainer.val_check_interval", f"an epoch has {train} batches; give as many or less"
        )


def _devices(data: Data, trainer: Trainer) -> Iterator[Mistake]:
    count = trainer.num_nodes * (trainer.devices if isinstance(trainer.devices, int) else 1)
    if count > data.batch_size:
        yield Mistake(
            "data.batch_size",
            f"is too small for every one of {count} devices to get an image (trainer.devices="
            f"{trainer.devices}, trainer.num_nodes={trainer.num_nodes}); set {count} or more",
        )


def _sharded(trainer: Trainer) -> Iterator[Mistake]:
    if trainer.strategy == "fsdp" and trainer.accelerator in ("cpu", "mps"):
        yield Mistake("trainer.strategy", "fsdp divides a model over GPUs; type trainer=ddp_cpu")
    if trainer.strategy != "fsdp":
        return
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


def _cuda_graphs(trainer: Trainer) -> Iterator[Mistake]:
    if trainer.uses_cuda_graphs and trainer.accumulate_grad_batches > 1:
        yield Mistake(
            "trainer.compile",
            f"leaves gradients in memory that the next batch overwrites, which rules out "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}; set it to 1, "
            f"or trainer.compile=default",
        )


def _augment(data: Data, augment: Augment) -> Iterator[Mistake]:
    height, width = data.shape[1:]
    if augment.random_crop >= min(height, width):
        yield Mistake(
            "augment.random_crop",
            f"must be less than the {min(height, width)} pixels of an image's side, "
            f"or a crop could show nothing of it",
        )
    if augment.cutout > max(height, width):
        yield Mistake(
            "augment.cutout", f"must be at most the {max(height, width)} pixels of an image's side"
        )


def _mixup(augment: Augment, loss: Loss) -> Iterator[Mistake]:
    if augment.mixup and loss.name in ("multi_margin", "sum"):
        yield Mistake(
            "augment.mixup",
            f"loss={loss.name} has no place for images of two classes; add augment.mixup=0, "
            f"or choose loss=cross_entropy, nll or mse",
        )


def _custom(callbacks: Callbacks, trainer: Trainer) -> Iterator[Mistake]:
    for index, declared in enumerate(callbacks.custom):
        if "_target_" not in declared:
            yield Mistake(
                f"callbacks.custom.{index}", "needs a _target_, such as mypackage.MyCallback"
            )
        elif (reason := callback_refusal(str(declared["_target_"]))) is not None:
            yield Mistake(f"callbacks.custom.{index}._target_", reason)
        elif trainer.strategy == "fsdp" and str(declared["_target_"]).endswith(AVERAGING):
            yield Mistake(
                f"callbacks.custom.{index}._target_",
                "cannot average weights that are divided over devices; type trainer.strategy=ddp",
            )


def _nesterov(optimizer: Optimizer) -> Iterator[Mistake]:
    if isinstance(optimizer, SGD) and optimizer.nesterov and optimizer.momentum == 0:
        yield Mistake(
            "optimizer.nesterov",
            "needs optimizer.momentum above 0; add optimizer.nesterov=false",
        )


def _modes(callbacks: Callbacks, scheduler: Scheduler) -> Iterator[Mistake]:
    """A metric is better one way; the key is there for those who know it from Lightning."""
    watching: dict[str, Any] = {
        "callbacks.checkpoint": callbacks.checkpoint,
        "callbacks.early_stopping": callbacks.early_stopping,
    }
    if isinstance(scheduler, Plateau):
        watching["scheduler"] = scheduler
    for name, section in watching.items():
        if section.mode not in ("auto", right := mode_of(section.monitor)):
            yield Mistake(
                f"{name}.mode",
                f"of {name}.monitor={section.monitor} {'more' if right == 'max' else 'less'} is "
                f"better; omit it, or set {name}.mode={right}",
            )


def _monitors(trainer: Trainer, callbacks: Callbacks, scheduler: Scheduler) -> Iterator[Mistake]:
    """Without validation there is no validation metric."""
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
            "needs callbacks.checkpoint.monitor, which does not exist with "
            "trainer.limit_val_batches=0; validate, or set callbacks.checkpoint.test_with=last",
        )
    if isinstance(scheduler, Plateau):
        yield Mistake("scheduler.monitor", f"{missing}; validate, or choose another scheduler")


def _nothing_trained(trainer: Trainer) -> Iterator[Mistake]:
    if trainer.limit_train_batches == 0 and not trainer.fast_dev_run:
        yield Mistake(
            "trainer.limit_train_batches", "trains and validates nothing; give 1 for one batch"
        )


def _nothing_kept(trainer: Trainer, callbacks: Callbacks) -> Iterator[Mistake]:
    """A test with the best checkpoint needs one."""
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


RULES: tuple[tuple[Callable[..., Iterator[Mistake]], tuple[str, ...]], ...] = (
    (_channels, ("data",)),
    (_classes, ("data",)),
    (_one_class, ("data", "loss")),
    (_published, ("data",)),
    (_synthetic, ("data",)),
    (_memory, ("data",)),
    (_folder, ("data",)),
    (_known_batches, ("data", "trainer")),
    (_devices, ("data", "trainer")),
    (_sharded, ("trainer",)),
    (_cuda_graphs, ("trainer",)),
    (_augment, ("data", "augment")),
    (_mixup, ("augment", "loss")),
    (_custom, ("callbacks", "trainer")),
    (_nesterov, ("optimizer",)),
    (_modes, ("callbacks", "scheduler")),
    (_monitors, ("trainer", "callbacks", "scheduler")),
    (_nothing_trained, ("trainer",)),
    (_nothing_kept, ("trainer", "callbacks")),
)
"""A rule, and the sections that it speaks of."""
