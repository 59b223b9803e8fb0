"""Rules between keys, and between keys and the data; the schema checks each key by itself.

The parameters of a rule are the sections that it compares. Those that read the data's section alone
are in :mod:`convtrain.config.data_rules`, those of the loss in :mod:`convtrain.config.loss_rules`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from inspect import signature

from convtrain.config.data_rules import (
    DATA_RULES,
    class_mistakes,
    synthetic_mistakes,
)
from convtrain.config.data_sections import SplitSizes
from convtrain.config.epochs import batch_count, limited
from convtrain.config.file_rules import FILE_RULES
from convtrain.config.groups.augment import Augment
from convtrain.config.groups.callbacks import Callbacks
from convtrain.config.groups.data import Data, Synthetic
from convtrain.config.groups.logger import Logger
from convtrain.config.groups.model import Model
from convtrain.config.groups.optimizer import SGD, Optimizer
from convtrain.config.groups.scheduler import CustomScheduler, Plateau, Scheduler
from convtrain.config.groups.trainer import Trainer
from convtrain.config.lightning_callbacks import AVERAGING, callback_refusal
from convtrain.config.loss_rules import LOSS_RULES
from convtrain.config.mistakes import Mistake
from convtrain.config.monitors import monitored, taken_names
from convtrain.config.parameter_groups import group_mistakes
from convtrain.config.schema import Config
from convtrain.config.targets import Target, unnamed
from convtrain.errors import ConfigError

Mistakes = Iterator[Mistake]


def disagreements(sections: Mapping[str, object], *, reads_data: bool = True) -> Mistakes:
    """Yield the mistakes that the rules find; a rule ends at a key that is itself invalid."""
    for rule in (*RULES, *FILE_RULES) if reads_data else RULES:
        names = list(signature(rule).parameters)
        if sections.keys() >= set(names):
            with contextlib.suppress(AttributeError):
                yield from rule(*(sections[name] for name in names))


def check_sizes(config: Config, sizes: SplitSizes) -> None:
    """Raise ConfigError if the batches do not fit the splits that were read."""
    wrong = list(_batches_fit(config.data, config.trainer, sizes))
    if wrong:
        raise ConfigError(*(f"{key}: {text}" for key, text in wrong))


# --- data and training ----------------------------------------------------------------------------


def _known_batches(data: Data, trainer: Trainer) -> Mistakes:
    if isinstance(data, Synthetic) and [*class_mistakes(data), *synthetic_mistakes(data)]:
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
    if trainer.ema is not None:
        yield Mistake(
            "trainer.ema",
            "cannot average weights that are divided over devices; type trainer.strategy=ddp",
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
        elif trainer.ema is not None and target.endswith(AVERAGING):
            yield Mistake(
                f"callbacks.custom.{index}._target_",
                f"averages the weights, which trainer.ema={trainer.ema:g} does as well; leave one "
                f"of them out",
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


def _freeze(model: Model, trainer: Trainer) -> Mistakes:
    if model.freeze and trainer.strategy == "fsdp":
        text = "is not tested with weights that are divided over devices; type trainer=ddp"
        yield Mistake("model.freeze", text)
    if model.unfreeze_at_epoch is not None and not model.freeze:
        text = "nothing is frozen that it could unfreeze; add model.freeze=[backbone], or type null"
        yield Mistake("model.unfreeze_at_epoch", text)


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
    *DATA_RULES, _known_batches, _devices, _sharded, _sharded_optimizer, _cuda_graphs, _augment,
    *LOSS_RULES, _custom, _loggers, _nesterov, _parameter_groups, _sharded_groups, _freeze,
    monitored, taken_names, _monitors, _nothing_trained, _nothing_kept,
)  # fmt: skip
