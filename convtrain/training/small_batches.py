"""Refuse batches that leave a device a single image, from which batch norm cannot learn."""

import torch
from torch import nn
from torch.func import functional_call

from convtrain.config.epochs import batch_count, limited, steps_of_epoch
from convtrain.config.schema import Config
from convtrain.data.module import ImageData
from convtrain.errors import ConfigError
from convtrain.training.devices import device_count


def batches_of_epoch(config: Config, data: ImageData) -> int:
    """Return the number of batches that an epoch trains on."""
    chosen, images = config.trainer, len(data.splits.train)
    batches = batch_count(images, config.data.batch_size, drop_last=config.data.drop_last)
    return limited(batches, int(chosen.fast_dev_run) or chosen.limit_train_batches)


def devices_of(config: Config) -> int:
    """Return the number of devices that a training uses, over all machines."""
    chosen = config.trainer
    here = chosen.devices if isinstance(chosen.devices, int) else device_count(chosen.accelerator)
    return max(here, 1) * chosen.num_nodes


def check_smallest_batch(config: Config, data: ImageData, model: nn.Module) -> None:
    """Raise ConfigError if a batch of an epoch gives batch norm one value per channel.

    The model must be in training mode; it may be on any device.
    """
    images, size, devices = len(data.splits.train), config.data.batch_size, devices_of(config)
    used, chosen = batches_of_epoch(config, data), config.trainer
    if not used:
        return
    last = min(used * size, images) - (used - 1) * size
    max_steps = chosen.max_steps or steps_of_epoch(used, chosen.accumulate_grad_batches)
    if max_steps * chosen.accumulate_grad_batches < used:  # the training ends before that batch
        last = size
    sharing = devices if chosen.sync_batchnorm else 1  # devices that share their statistics
    smallest = max(last // devices, 1) * sharing
    if smallest > 1 or not _refuses_one_image(model, config.data.shape):
        return
    if last == size:
        raise ConfigError(
            f"data.batch_size={size}: leaves each of {devices} devices one image, and batch norm "
            f"needs more than one value a channel; set data.batch_size={2 * devices} or more"
        )
    raise ConfigError(
        f"data.batch_size={size}: the last of an epoch's {used} batches has {last} of {images} "
        f"images, one for a device, and batch norm needs more than one value a channel; "
        f"set data.drop_last=true"
    )


def _refuses_one_image(model: nn.Module, shape: list[int]) -> bool:
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in own.items()}
    image = torch.empty(1, *shape, device="meta")
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            functional_call(model, shapes, (image,))
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    except Exception:  # a model that computes with values cannot run on the meta device
        return False
    return False
