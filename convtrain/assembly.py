"""The parts of a run, made from its configuration: data, model, task, callbacks, loggers."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import nn
from torchmetrics import Metric

from convtrain.config.data_sections import SplitSizes
from convtrain.config.groups.model import CustomModel, DeclaredModel, TimmModel, TorchvisionModel
from convtrain.config.groups.optimizer import GROUPING
from convtrain.config.metrics import mode_of
from convtrain.config.rules import check_sizes
from convtrain.config.schema import Config
from convtrain.data.batches import Normalisation
from convtrain.data.images import Splits
from convtrain.data.module import ImageData
from convtrain.errors import NetworkError
from convtrain.gradients.record.recorder import Recorder
from convtrain.gradients.record.schedule import DETAILS, Plan
from convtrain.models.build import (
    build_custom_model,
    check_output_shape,
)
from convtrain.models.determinism import pool_deterministically, refuse_nondeterministic
from convtrain.models.memory import channels_last_pays, lay_channels_last, within_memory
from convtrain.network.resolve import resolve_network
from convtrain.process.ranks import rank_info
from convtrain.run.directory import Run
from convtrain.training.callbacks.checkpoints import make_checkpoints
from convtrain.training.callbacks.pictures import Pictures
from convtrain.training.callbacks.prediction_rows import PredictionRows
from convtrain.training.callbacks.progress_bar import RunProgress
from convtrain.training.callbacks.stopping import EarlyStopping
from convtrain.training.callbacks.walkthrough import Walkthrough
from convtrain.training.devices import kind_of_device
from convtrain.training.freezing import freeze
from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.loggers.tensorboard import TensorBoard
from convtrain.training.objectives import build_loss, make_loss
from convtrain.training.optimizers.build import make_optimizer
from convtrain.training.parts import parts_of
from convtrain.training.schedules import MakeSchedule
from convtrain.training.task import Task


def make_data(config: Config, splits: Splits | None = None) -> ImageData:
    """Load the configured dataset, unless its splits are given."""
    data = config.data
    augmentation = config.augment.build(
        shape=data.shape, store_size=data.stored_side, trust=config.trust
    )
    read = splits or data.build()
    assert isinstance(read, Splits)
    made = ImageData(
        read,
        normalise=Normalisation(data.mean, data.std),
        augmentation=augmentation,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        seed=config.seed,
        split_seed=data.split_seed,
        classes=data.class_count,
        balanced=data.sampling == "balanced",
        drop_last=data.drop_last,
        limit=data.limit,
        overfit_batches=data.overfit_batches,
    )
    splits = made.splits
    check_sizes(config, SplitSizes(len(splits.train), len(splits.val), len(splits.test)))
    return made


def model_override(config: Config) -> str:
    """Return the override that chose the model, for error messages."""
    match config.model:
        case CustomModel():
            return config.model.where
        case TorchvisionModel(name=name) | TimmModel(name=name):
            return f"model.name={name}"
        case _:
            return f"network={config.network.name}"


def make_model(config: Config) -> nn.Module:
    """Make the model of a training; raise NetworkError if it has no parameters to learn."""
    model = build_model(config)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NetworkError(f"{model_override(config)}: has no parameters to learn")
    if config.model.freeze or any(getattr(config.optimizer, key) for key in GROUPING):
        parts = parts_of(model, build_loss(config))
        starts = freeze(config.optimizer, config.model, parts).start_epochs
        # This raises what would be raised later.
        make_optimizer(config.optimizer, parts, fused=False, start_epochs=starts)
    if config.trainer.deterministic and kind_of_device(config.trainer.accelerator) == "gpu":
        refuse_nondeterministic(model)
        pool_deterministically()
    return model


def build_model(config: Config) -> nn.Module:
    """Build the configured model; raise NetworkError if it exceeds the memory."""
    with within_memory(model_override(config)):
        return _build(config)


def _build(config: Config) -> nn.Module:
    model, shape = config.model, config.data.shape
    if isinstance(model, TorchvisionModel | TimmModel):
        built: nn.Module = model.build(input_shape=shape, num_classes=config.data.class_count)
        return built
    if isinstance(model, CustomModel):
        return build_custom_model(
            model,
            shape,
            config.data.class_count,
            checks_classes=config.loss.name != "sum",
            device=_device(config),
            double=config.trainer.precision in (64, "64-true"),
        )
    assert isinstance(model, DeclaredModel)
    declared = config.network
    network = resolve_network(declared.layers, shape, declared.blocks, config.trust)
    if config.loss.name != "sum":
        check_output_shape(network.output_shape, config.data.class_count, model_override(config))
    built = model.build(
        network=network,
        **config.network.model_dump(include={"init", "parametrize", "prune"}),
        sync_batchnorm=config.trainer.sync_batchnorm,
        in_place=True,
    )
    return built


def _device(config: Config) -> torch.device:
    """Return the device of this process; a forecast has the meta device."""
    if (default := torch.get_default_device()).type == "meta":
        return default
    kind = kind_of_device(config.trainer.accelerator)
    return torch.device("cuda", rank_info().local_rank) if kind == "gpu" else torch.device(kind)


def wants_channels_last(config: Config, model: nn.Module) -> bool:
    """Choose the memory format from the configuration and the kind of device alone."""
    chosen = config.trainer.channels_last
    if chosen != "auto":
        return chosen
    if config.trainer.strategy == "fsdp":  # fully_shard takes contiguous weights only
        return False
    own = isinstance(config.model, DeclaredModel) and config.network.has_own_layers
    if own or isinstance(config.model, CustomModel):
        return False  # a user's code may call view(), which would fail
    pixels = config.data.batch_size * math.prod(config.data.shape[1:])
    return channels_last_pays(model, kind_of_device(config.trainer.accelerator), pixels)


def make_task(
    config: Config,
    model: nn.Module,
    *,
    multi_label: bool = False,
    class_weights: Sequence[float] | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Task:
    if channels_last := wants_channels_last(config, model):
        lay_channels_last(model)
    if mode := config.trainer.compile:
        # When it is first called, in place, so that parameters keep their names. Each shape by
        # itself, so that a run resumed inside an epoch computes the same as an uninterrupted one.
        model.compile(mode=mode, dynamic=False)
    # A fused optimiser unscales gradients itself, so that Lightning cannot clip them, and it takes
    # neither sparse nor sharded gradients.
    is_sparse = any(getattr(layer, "sparse", None) is True for layer in model.modules())
    chosen = config.trainer
    fused = not (is_sparse or chosen.precision == "16-mixed" or chosen.strategy == "fsdp")
    loss = make_loss(config, multi_label=multi_label, class_weights=class_weights)
    frozen = freeze(config.optimizer, config.model, parts_of(model, loss))
    return Task(
        model=model,
        loss=loss,
        make_optimizer=partial(
            make_optimizer, config.optimizer, fused=fused, start_epochs=frozen.start_epochs
        ),
        make_schedule=cast(MakeSchedule, config.scheduler.build),
        seed=config.seed,
        log_every_n_steps=config.trainer.log_every_n_steps,
        stop_when_lost=config.alarm != "off",
        multi_label=multi_label,
        metrics=metrics,
        channels_last=channels_last,
        cuda_graphs=config.trainer.uses_cuda_graphs,
        frozen=frozen,
        ema=chosen.ema,
    )


def make_callbacks(config: Config, run: Run, data: ImageData) -> list[Callback]:
    chosen, validates = config.callbacks, config.trainer.limit_val_batches != 0
    callbacks: list[Callback] = []
    if not config.trainer.fast_dev_run:
        callbacks += make_checkpoints(chosen.checkpoint, run.checkpoints, validates=validates)
    early = chosen.early_stopping
    if early.patience is not None:
        callbacks.append(
            EarlyStopping(
                early.monitor,
                min_delta=early.min_delta,
                patience=early.patience,
                mode=mode_of(early.monitor, early.mode),
                check_on_train_epoch_end=True,
            )
        )
    if chosen.progress_bar:
        callbacks.append(RunProgress())
    if chosen.walkthrough:
        callbacks.append(Walkthrough())
    if config.logger.tensorboard:
        callbacks.append(
            Pictures(
                test=data.splits.test,
                normalise=data.normalise,
                classes=data.splits.classes or config.data.class_names,
                count=config.logger.images,
                seed=config.seed,
            )
        )
    if chosen.report:
        callbacks.append(
            PredictionRows(classes=config.data.class_count, multi_label=data.is_multi_label)
        )
    callbacks += [declared.build() for declared in chosen.custom]
    return callbacks


def make_plan(config: Config) -> Plan:
    chosen = config.recorder
    return Plan(
        **{detail: getattr(chosen, detail) for detail in DETAILS},
        tensor_names=tuple(chosen.tensor_names),
        include=tuple(chosen.include),
        exclude=tuple(chosen.exclude),
    )


def make_recorder(config: Config, run_dir: Path) -> Recorder | None:
    chosen, plan = config.recorder, make_plan(config)
    if not plan.samplings:
        return None
    return Recorder(
        run_dir=run_dir,
        plan=plan,
        flush_every_n_steps=chosen.flush_every_n_steps,
        max_bytes=round(chosen.max_mib * 2**20),
        max_overhead=chosen.max_overhead,
        alarm=config.alarm,
    )


def make_loggers(config: Config, run_dir: Path) -> list[Logger]:
    """Make convtrain's own loggers; :mod:`convtrain.training.loggers.custom` makes the others."""
    chosen = ((config.logger.tensorboard, TensorBoard), (config.logger.csv, MetricsCsv))
    return [make(run_dir) for wanted, make in chosen if wanted]
