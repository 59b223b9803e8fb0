"""The loss and the chosen metrics of a run, made from its configuration and tried."""

import logging
import math
from collections.abc import Sequence
from typing import cast

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torchmetrics import Metric

from convtrain.config.groups.loss import CustomLoss, WeightedLoss
from convtrain.config.loss_rules import several_labels
from convtrain.config.metrics import mode_of
from convtrain.config.monitors import monitors
from convtrain.config.schema import Config
from convtrain.config.torch_losses import known
from convtrain.data.module import ImageData
from convtrain.data.randomness import derive_seed
from convtrain.errors import ConfigError, few
from convtrain.process.ranks import rank_info
from convtrain.training.chosen_metrics import try_metrics
from convtrain.training.class_weights import balanced_weights
from convtrain.training.custom_losses import TorchLoss, try_loss
from convtrain.training.losses import ClassWeighted, Loss

log = logging.getLogger("convtrain")

LOSS = 1  # derives the seed of a loss's parameters


def check_loss_targets(config: Config, *, multi_label: bool) -> None:
    """Raise ConfigError if images have any number of labels, and loss or sampling expects one."""
    if multi_label and (wrong := list(several_labels(config.data, config.loss))):
        raise ConfigError(*(mistake.text for mistake in wrong))


def class_weights_of(config: Config, data: ImageData) -> list[float] | None:
    """Return the weights that balance the training images; None if none are to be balanced.

    Raises:
        ConfigError: a class has no image, or a label is one of all images.
    """
    loss = config.loss
    if not isinstance(loss, WeightedLoss) or loss.class_weights != "balanced":
        return None
    names = data.splits.classes or config.data.class_names
    return balanced_weights(data.splits.train.labels, names)


def make_loss(
    config: Config, *, multi_label: bool = False, class_weights: Sequence[float] | None = None
) -> Loss:
    """Make the loss; ConfigError if one of a user's own cannot be trained with.

    ``class_weights`` are those of ``loss.class_weights=balanced``.
    """
    chosen, loss = config.loss, build_loss(config, class_weights)
    if isinstance(chosen, CustomLoss):
        try_loss(
            loss,
            chosen.where,
            classes=config.data.class_count,
            multi_label=multi_label,
            mixes=bool(config.augment.mixup or config.augment.cutmix),
            double=config.trainer.precision in (64, "64-true"),
        )
    return loss


def build_loss(config: Config, class_weights: Sequence[float] | None = None) -> Loss:
    """Build the loss, whose parameters start alike each time; it may not fit the targets.

    Balanced weights that are not given, because the data is not read, are NaN.
    """
    chosen = config.loss
    if isinstance(chosen, WeightedLoss) and (typed := chosen.class_weights) is not None:
        unknown = [math.nan] * config.data.class_count
        weights = (class_weights or unknown) if typed == "balanced" else typed
        double = config.trainer.precision in (64, "64-true")
        dtype = torch.float64 if double else torch.float32
        return ClassWeighted(chosen.build(), torch.tensor(weights, dtype=dtype))
    if not isinstance(chosen, CustomLoss):
        return chosen.build()
    with torch.random.fork_rng([]):  # its parameters start alike, whatever the model has drawn
        torch.default_generator.manual_seed(derive_seed(config.seed, LOSS))
        made = chosen.build()
    if isinstance(made, nn.Module) and config.trainer.strategy == "fsdp" and [*made.parameters()]:
        raise ConfigError(
            f"{chosen.where}: has parameters of its own, and trainer.strategy=fsdp divides those "
            f"of the model alone; type trainer.strategy=ddp"
        )
    takes = known(chosen.target)
    return TorchLoss(made, takes) if takes and isinstance(made, nn.Module) else cast(Loss, made)


def make_metrics(config: Config, data: ImageData) -> dict[str, Metric]:
    """Make the chosen metrics, and try them; ConfigError if one fails or cannot be monitored."""
    count, task = config.data.class_count, "multilabel" if data.is_multi_label else "multiclass"

    def make(*, validate_args: bool) -> dict[str, Metric]:  # to validate waits for the device
        offered = {"num_classes": count, "num_labels": count, "task": task}
        return {
            name: chosen.build(**chosen.offered(**offered, validate_args=validate_args))
            for name, chosen in config.metrics.items()
        }

    made = make(validate_args=False)
    found = try_metrics(
        make(validate_args=True),
        lambda name: config.metrics[name].where,
        classes=count,
        multi_label=data.is_multi_label,
    )
    splits, devices = data.splits, rank_info().world_size
    least = min(n for n in (config.data.eval_batch_size, len(splits.val), len(splits.test)) if n)
    if made and devices > least:  # torchmetrics cannot join the states of one that had no image
        raise ConfigError(
            f"metrics: each of {devices} devices needs an image of each split, and the smallest "
            f"batch or split has {least}; set data.eval_batch_size={devices} or more"
        )
    if made and data.is_multi_label:
        _warn_of_absent_labels(config, data)
    for each in monitors(config.callbacks, config.scheduler, config.sweep):
        name = each.metric.removeprefix("val/")
        if each.metric == f"val/{name}" and name in found.arrays:
            raise ConfigError(
                f"{each.key}={each.metric}: {config.metrics[name].class_name} gives no single "
                f"number; monitor another metric"
            )
        if each.metric == f"val/{name}" and name in made:
            right = {True: "max", False: "min", None: None}[made[name].higher_is_better]
            if each.mode_key and right not in (None, mode_of(each.metric, each.mode)):
                raise ConfigError(
                    f"{each.key}={each.metric}: {'more' if right == 'max' else 'less'} is better, "
                    f"says {config.metrics[name].class_name}; set {each.mode_key}={right}"
                )
    return made


def _warn_of_absent_labels(config: Config, data: ImageData) -> None:
    """Warn of labels that no image of a split has, of which torchmetrics' scores are 0."""
    names = data.splits.classes or config.data.class_names
    for split, images in (("validation", data.splits.val), ("test", data.splits.test)):
        has = (images.labels > 0.5).any(0).tolist()
        if absent := [name for name, present in zip(names, has, strict=True) if not present]:
            rank_zero_only(log.warning)(
                "%s: no %s image has the label %s, so that means over the labels, such as F1 and "
                "AUROC, count it as 0", config.data.source, split, few(absent),
            )  # fmt: skip
