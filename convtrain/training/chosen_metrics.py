"""Metrics of torchmetrics over whole epochs, beside loss and accuracy."""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

from convtrain.errors import ConfigError, first_line
from convtrain.training.running_metrics import MAX_PENDING_LOGITS

MIN_TRIAL_IMAGES = 4


class Computed(NamedTuple):
    """The metrics of an epoch by name: single numbers, and tensors or containers of them."""

    numbers: dict[str, float]
    arrays: dict[str, object]


class ChosenMetrics:
    """Updates metrics with each image once, and computes them at the end of an epoch.

    ``add`` only stores a batch, because a metric's update may wait for the device.

    Args:
        multi_label: an image has any number of labels. Metrics get probabilities (N, labels) and
            labels of 0 and 1 (N, labels) then, else probabilities (N, classes) and class indices.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, multi_label: bool = False) -> None:
        self.metrics, self.multi_label = dict(metrics), multi_label
        self.reset()

    def reset(self) -> None:
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._pending = 0
        for metric in self.metrics.values():
            metric.reset()

    def add(self, logits: Tensor, targets: Tensor) -> None:
        if not self.metrics or logits.ndim != 2:
            return
        self._logits.append(logits.detach())
        self._targets.append(targets)
        self._pending += logits.numel()
        if self._pending > MAX_PENDING_LOGITS:
            self._update()

    def compute(self) -> Computed:
        """Return all metrics over all devices, each of which must call, and reset them."""
        self._update()
        numbers, arrays = dict[str, float](), dict[str, object]()
        for name, metric in self.metrics.items():
            with warnings.catch_warnings():  # such as that a class has no image
                warnings.simplefilter("ignore")
                value = metric.compute()
            if is_number(value):
                numbers[name] = float(value)
            else:
                arrays[name] = tree_map_only(Tensor, lambda t: t.cpu().clone(), value)
        self.reset()
        return Computed(numbers, arrays)

    @torch.no_grad()
    def _update(self) -> None:
        if not self._logits:
            return
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        self._logits, self._targets, self._pending = [], [], 0
        probabilities = probabilities_of(logits, multi_label=self.multi_label)
        wanted = (targets > 0.5).long() if self.multi_label else targets
        for metric in self.metrics.values():
            metric.to(logits.device).update(probabilities, wanted)


def probabilities_of(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Return probabilities (N, classes) of logits, in float32, or in float64 if these are so."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).sigmoid() if multi_label else logits.softmax(1, dtype=dtype)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


def plain(value: object) -> object:
    """Return tensors in a container as lists."""
    return tree_map_only(Tensor, lambda tensor: tensor.tolist(), value)


def try_metrics(
    metrics: Mapping[str, Metric],
    where: Callable[[str], str],
    *,
    classes: int,
    multi_label: bool,
) -> Computed:
    """Compute each metric for a few images, and return what it gives.

    Args:
        where: returns the override that names a metric, for errors.

    Raises:
        ConfigError: a metric fails.
    """
    count = max(MIN_TRIAL_IMAGES, 2 * classes)
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(count) % classes
    if multi_label:
        targets = torch.nn.functional.one_hot(targets, classes).float()
    numbers, arrays = dict[str, float](), dict[str, object]()
    for name, metric in metrics.items():
        one = ChosenMetrics({name: metric}, multi_label=multi_label)
        try:
            one.add(logits, targets)
            found = one.compute()
        except Exception as error:  # a user's code may raise anything
            kind = "labels" if multi_label else "class indices"
            raise ConfigError(
                f"{where(name)}: fails on probabilities ({count}, {classes}) and {kind}: "
                f"{first_line(error)}"
            ) from error
        numbers |= found.numbers
        arrays |= found.arrays
    return Computed(numbers, arrays)
