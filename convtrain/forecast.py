"""Forecast the parameters, steps, memory and disk space of a training.

The model is built on torch's meta device, so a forecast needs neither the model's memory nor an
accelerator. The data is read as for a training.
"""

import math
from collections.abc import Iterable
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convtrain.assembly import (
    make_callbacks,
    make_data,
    make_loggers,
    make_model,
    make_plan,
)
from convtrain.config.epochs import steps_of_epoch, steps_of_training
from convtrain.config.schema import Config
from convtrain.config.targets import check_targets
from convtrain.data.inspection import Inspection
from convtrain.data.module import ImageData
from convtrain.errors import ConfigError, ConvtrainError, error_line
from convtrain.gradients.record.disk_space import RecordSize, fit_on_disk
from convtrain.run.directory import Run
from convtrain.training.devices import check_devices
from convtrain.training.freezing import freeze
from convtrain.training.objectives import (
    build_loss,
    check_loss_targets,
    class_weights_of,
    make_loss,
    make_metrics,
)
from convtrain.training.optimizers.build import GroupSummary, make_optimizer, summarize
from convtrain.training.parts import Parts, named_parameters, parts_of
from convtrain.training.small_batches import batches_of_epoch, check_smallest_batch, devices_of
from convtrain.training.starting_weights import read_starting_weights
from convtrain.training.trainer import make_trainer
from convtrain.training.weight_average import averaged

CHECKPOINT_BYTES, TENSOR_BYTES = 10_000, 500  # of a checkpoint, in addition to its numbers
CSV_ENTRY_BYTES, TENSORBOARD_ENTRY_BYTES = 90, 250
FILTERS_BYTES, IMAGE_BYTES = 15_000, 700  # of TensorBoard's pictures
SMALL_FILES_BYTES = 16_000  # configuration, provenance, log and result


class Forecast(NamedTuple):
    """The needs of a training."""

    images: tuple[int, int, int]  # training, validation, test
    parameters: int  # trained ones, at the start
    frozen: dict[str, int]  # the others, by how long they are frozen
    steps: int  # optimiser steps, at most
    epoch_steps: int
    memory: dict[str, int]  # bytes on each device, by purpose
    disk: dict[str, int]  # bytes in the run's directory, by purpose
    groups: list[GroupSummary]  # of the parameters
    weights: list[str]  # lines about the weights that the training begins with


def forecast(config: Config, inspected: Inspection | None = None) -> Forecast:
    """Return the needs of a training; ``inspected`` is its data, if that was looked at before.

    ``activations`` are what autograd keeps of one batch from the forward pass to the backward pass,
    each storage once, or half of it for ``16-mixed`` and ``bf16-mixed``. They are missing if the
    model cannot run on the meta device. ``images`` are the splits, one byte per pixel and channel;
    none if they are read from a file. The memory leaves out the libraries (about 500 MB for CUDA),
    the workspaces of kernels, and the gradients of activations, which replace the activations.

    Raises:
        ConvtrainError: what the training would raise before its first step.
    """
    check_targets(config)
    chosen = config.trainer
    model = make_model_on_meta(config)
    begins_with = read_starting_weights(config, model)
    parts = parts_of(model, build_loss(config))
    frozen = freeze(config.optimizer, config.model, parts)
    groups = summarize(config.optimizer, parts, frozen.start_epochs)
    at_start = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen_numbers = frozen.numbers()
    data = make_data(config, inspected.splits if inspected else None)
    check_smallest_batch(config, data, model)
    check_loss_targets(config, multi_label=data.is_multi_label)
    weights = class_weights_of(config, data)
    make_loss(config, multi_label=data.is_multi_label, class_weights=weights)
    make_metrics(config, data)
    _check_the_rest(config, data)
    frozen.enter(chosen.max_epochs - 1)  # the memory and the record are those of the last epoch
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = _optimizer_state(config, parts)
    width = 2 if chosen.precision in (64, "64-true") else 1
    splits = (data.splits.train, data.splits.val, data.splits.test)
    memory = {
        "parameters": width * _bytes(model.parameters()),
        "gradients": width * _bytes(trained),
        "optimiser state": width * _bytes(state),
        "buffers": width * _bytes(model.buffers()),
        "images": _image_bytes(data, inspected),
    }
    places = averaged(model).values() if chosen.ema is not None else ()
    average = list({place.tensor for place in places})
    if average:
        memory["average of the weights"] = width * _bytes(average)
    if (kept := saved_for_backward(config, model)) is not None:
        half = chosen.precision in ("16-mixed", "bf16-mixed")
        memory["activations"] = kept // 2 if half else width * kept
    epoch_steps = steps_of_epoch(batches_of_epoch(config, data), chosen.accumulate_grad_batches)
    steps = steps_of_training(epoch_steps, chosen.max_epochs, chosen.max_steps)
    steps = epoch_steps if chosen.fast_dev_run else steps
    numbers = [*model.parameters(), *model.buffers(), *state, *average]
    checkpoint = width * _bytes(numbers) + CHECKPOINT_BYTES + TENSOR_BYTES * len(numbers)
    disk = _disk(config, steps=steps, epoch_steps=epoch_steps, checkpoint=checkpoint)
    disk["gradient record"] = _record(config, model, steps, epoch_steps)
    return Forecast(
        images=(len(splits[0]), len(splits[1]), len(splits[2])),
        parameters=at_start,
        frozen=frozen_numbers,
        steps=steps,
        epoch_steps=epoch_steps,
        memory=memory,
        disk=disk,
        groups=groups,
        weights=begins_with.lines(model, config) if begins_with else [],
    )


def _image_bytes(data: ImageData, inspected: Inspection | None) -> int:
    """Return the bytes of images in memory; inspected files have no pixels yet."""
    if inspected is not None and (files := inspected.files) is not None:
        return files.stored_bytes if files.kept == "in memory" else 0
    splits = data.splits.images
    return sum({id(split.pixels): split.resident_bytes for split in splits}.values())


def _check_the_rest(config: Config, data: ImageData) -> None:
    """Raise the errors of devices, callbacks, loggers and trainer."""
    chosen = config.trainer
    check_devices(chosen.accelerator, chosen.devices, chosen.strategy)
    with TemporaryDirectory() as folder:
        run = Run(folder)
        callbacks = make_callbacks(config, run, data)
        if chosen.devices == 1:  # several devices would need several processes
            loggers = make_loggers(config, run.path)
            make_trainer(chosen, run_dir=run.path, callbacks=callbacks, loggers=loggers)


def make_model_on_meta(config: Config) -> nn.Module:
    """Make the model without values.

    Constructors that read values, such as orthogonal parametrizations, fail on the meta device.
    Their models are made on the CPU and then moved, which also raises the errors of a model.
    """
    try:
        with torch.device("meta"):
            return make_model(config)
    except Exception:
        return make_model(config).to("meta")


def saved_for_backward(config: Config, model: nn.Module) -> int | None:
    """Return the bytes that autograd keeps for a batch; None if the model reads values."""
    kept: dict[int, Tensor] = {}  # keeps the tensors alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    size = math.ceil(config.data.batch_size / devices_of(config))
    loss = build_loss(config)
    if isinstance(loss, nn.Module):
        loss.to("meta", torch.float32)  # as the model
    try:
        with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            images = torch.empty(size, *config.data.shape)
            result = loss(model(images), torch.zeros(size, dtype=torch.int64))
    except Exception:
        return None
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers(), result)}
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


def _optimizer_state(config: Config, parts: Parts) -> list[Tensor]:
    try:
        return _state_after_step(config, parts)
    except ConvtrainError:
        raise
    except Exception:  # an optimiser that reads values, such as Adafactor
        for part in parts.values():
            part.to_empty(device="cpu")
        for _, parameter in named_parameters(parts):
            nn.init.zeros_(parameter)
        try:
            found = _state_after_step(config, parts)
        except Exception as error:  # of a user's own optimiser
            where = getattr(config.optimizer, "where", f"optimizer={config.optimizer.name}")
            raise ConfigError(f"{where}: its step fails: {error_line(error)}") from error
        for part in parts.values():
            part.to("meta")
        return found


def _state_after_step(config: Config, parts: Parts) -> list[Tensor]:
    optimizer = make_optimizer(config.optimizer, parts)
    for _, parameter in named_parameters(parts):
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: 0.0)
    states = optimizer.state.values()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _disk(config: Config, *, steps: int, epoch_steps: int, checkpoint: int) -> dict[str, int]:
    found = {"records": SMALL_FILES_BYTES}
    if config.trainer.fast_dev_run:
        return found  # it saves and logs nothing
    epochs, chosen = steps // max(epoch_steps, 1), config.callbacks.checkpoint
    at_epochs = epochs // chosen.every_n_epochs
    at_steps = steps // chosen.every_n_steps if chosen.every_n_steps else 0
    count = min(chosen.keep_last, max(at_epochs + at_steps, 1))
    if config.trainer.limit_val_batches:
        count += min(chosen.save_top_k, at_epochs)
    found[f"{count} checkpoint{'s' * (count > 1)}"] = count * checkpoint
    entries = steps // config.trainer.log_every_n_steps + 3 * (epochs + 1)
    if config.logger.csv:
        found["metrics.csv"] = CSV_ENTRY_BYTES * entries
    if config.logger.tensorboard:
        pictures = FILTERS_BYTES + IMAGE_BYTES * config.logger.images
        found["TensorBoard"] = TENSORBOARD_ENTRY_BYTES * entries + pictures
    return found


def _record(config: Config, model: nn.Module, steps: int, epoch_steps: int) -> int:
    plan = make_plan(config)
    size = RecordSize(
        steps,
        rows_per_flush=config.recorder.flush_every_n_steps,
        saves=math.ceil(steps / max(epoch_steps, 1)),
    ).of_model(model, plan)
    return fit_on_disk(plan, size, max_bytes=round(config.recorder.max_mib * 2**20))[1]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
