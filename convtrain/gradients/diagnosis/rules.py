"""The rules of the diagnosis: conditions, thresholds and advice, all defined only here."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

PATIENCE_STEPS = 100
"""A rule on layers or parameters raises an alarm after so many recorded steps in a row."""
MIN_TREND_STEPS, TREND_PARTS = 20, 10
"""A trend compares the first tenth with the last tenth of at least this many steps."""

BASELINE_STEPS, BASELINE_WARMUP_STEPS, BASELINE_RECENT_STEPS = 100, 50, 10
MAX_ROBUST_Z_SCORE = 6.0
MIN_LOG_NORM_MAD = 0.2  # keeps a ripple in a flat series from exploding
MAX_RATIO_TO_MEDIAN, MAX_RATIO_TO_RECENT = 100.0, 3.0
"""These define an explosion: :class:`convtrain.gradients.diagnosis.baseline.NormBaseline`."""

MAX_FIRST_LAYER_RATIO, MAX_LAYER_RATIO = 100.0, 1000.0
"""Limits of the first layer's, or any layer's, gradient norm / that of the last layer, either way.
In a healthy network, a batch norm's is often a hundredth of the last layer's."""
MIN_RATIO_TO_LAYER = 1e-7
MAX_NORM_GROWTH = 10.0
MAX_CLIPPED_FRACTION = 0.5
MAX_SKIPPED_FRACTION = 0.1  # a loss scaler starts too high by design
MIN_UPDATE_RATIO, TYPICAL_UPDATE_RATIO, MAX_UPDATE_RATIO = 1e-5, 1e-3, 5e-2

CLIP_QUANTILE, CLIP_RATIO = 0.95, 3.0
"""The advised clipping limit is this quantile of the norms, or this multiple of the usual norm."""
MAX_LISTED, MAX_SEPARATE_ALARMS = 8, 4
"""Most names in a message; most alarms of a rule in a flush, beyond which they become one."""


class Alarm(NamedTuple):
    """Trouble at one step, counted from 1; ``kind`` is the rule's name.

    ``parameter`` is the first parameter or layer in trouble; None means all gradients together.
    """

    kind: str
    step: int
    parameter: str | None
    message: str


class Rule(NamedTuple):
    """A condition that counts as trouble.

    ``name`` is the ``kind`` of its alarms. Trouble is above ``threshold``, or at and below it if
    ``is_minimum``. ``message`` is a template for ``str.format``.
    """

    name: str
    threshold: float
    message: str
    is_minimum: bool = False

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()

    def holds(self, values: np.ndarray | float) -> np.ndarray:
        """Return where the rule holds; NaN never does."""
        return np.asarray(values <= self.threshold if self.is_minimum else values > self.threshold)

    def alarm(self, step: int, parameter: str | None, **facts: object) -> Alarm:
        text = self.message.format(threshold=self.threshold, **facts)
        return Alarm(self.name, step, parameter, f"step {step}: {text}")

    def line(self, **facts: object) -> str:
        return f"{self.title}: {self.message.format(threshold=self.threshold, **facts)}."


NONFINITE = Rule(
    "nonfinite",
    0,
    "NaN or infinity in the gradient of {who}; try a lower optimizer.lr, "
    "trainer.gradient_clip_val=1 or trainer.precision=32",
)
LOSS = Rule(
    "loss",
    0,
    "the loss is {loss:g}, although all gradients are finite; try a lower optimizer.lr or "
    "trainer.precision=32",
)
EXPLODING = Rule(
    "exploding",
    MAX_ROBUST_Z_SCORE,
    "gradient norm {norm:.3g}, {ratio:.3g} times the usual {usual:.3g}{largest}; try a lower "
    "optimizer.lr or trainer.gradient_clip_val={clip:g}",
)
NO_GRADIENT = Rule(
    "no_gradient",
    0,
    "all gradients are exactly zero {when}; does the loss depend on the weights? Try another "
    "init or a lower optimizer.lr",
    is_minimum=True,
)
DEAD = Rule(
    "dead",
    0,
    "{who}: gradient exactly zero {when}; try a lower optimizer.lr, LeakyReLU in place of "
    "ReLU, or BatchNorm2d before it",
    is_minimum=True,
)
VANISHING = Rule(
    "vanishing",
    1 / MAX_FIRST_LAYER_RATIO,
    "{who}: gradient norm below {threshold:g}x the last layer's {when}; try BatchNorm2d or "
    "Residual in the network, ReLU for Sigmoid or Tanh, or init with kaiming_normal",
    is_minimum=True,
)
EXPLODING_BACKWARDS = Rule(
    "exploding_backwards",
    MAX_FIRST_LAYER_RATIO,
    "{who}: gradient norm above {threshold:g}x the last layer's {when}; try BatchNorm2d in the "
    "network, init with kaiming_normal or orthogonal, or trainer.gradient_clip_val=1",
)
NEGLIGIBLE = Rule(
    "negligible",
    MIN_RATIO_TO_LAYER,
    "{who}: gradient norm below {threshold:g}x its layer's {when}; a bias right before a batch "
    "norm has no effect: write bias: false there",
    is_minimum=True,
)
STILL = Rule(
    "still",
    0,
    "{who}: the weights did not change, although they had a gradient, {when}; is it in the "
    "optimiser, with a learning rate above 0? See optimizer.lr, scheduler",
    is_minimum=True,
)
SKIPPED = Rule(
    "skipped",
    MAX_SKIPPED_FRACTION,
    "the loss scaler skipped {value:.0%} of the later half of the steps, because float16 "
    "overflowed; try trainer.precision=bf16-mixed or a lower optimizer.lr",
)
GROWING = Rule(
    "growing",
    MAX_NORM_GROWTH,
    "the gradient norm grew to {value:.3g}x from the first tenth of the steps to the last; try "
    "a lower optimizer.lr, scheduler=cosine or trainer.gradient_clip_val={clip:g}",
)
CLIPPED = Rule(
    "clipped",
    MAX_CLIPPED_FRACTION,
    "{value:.0%} of the steps were clipped, to a median of {kept:.2g}x their norm, so the limit "
    "sets the pace rather than optimizer.lr; try {limit}a lower optimizer.lr",
)
SLOW = Rule(
    "slow",
    MIN_UPDATE_RATIO,
    "a step changes the weights by only {value:.1e} of their norm; try a higher optimizer.lr",
    is_minimum=True,
)
HASTY = Rule(
    "hasty",
    MAX_UPDATE_RATIO,
    "a step changes the weights by {value:.1e} of their norm; try a lower optimizer.lr",
)


def layer_ratios(norms: np.ndarray) -> np.ndarray:
    """Return each layer's gradient norm / that of the last layer with a gradient.

    ``norms`` and the result are (S, L), in the network's order; NaN where there is no gradient.
    """
    living = np.where(norms > 0, norms, np.nan)
    last = norms.shape[1] - 1 - np.argmax(norms[:, ::-1] > 0, axis=1)
    return living / np.take_along_axis(living, last[:, None], axis=1)


def are_far(ratios: np.ndarray) -> np.ndarray:
    """Return where ratios of :func:`layer_ratios`, or their inverses, exceed their limit, (S, L).

    Where the first layer exceeds its own limit, this limit holds for all layers.
    """
    first = np.take_along_axis(ratios, np.argmax(ratios > 0, axis=1)[:, None], axis=1)
    limit = np.where(first > MAX_FIRST_LAYER_RATIO, MAX_FIRST_LAYER_RATIO, MAX_LAYER_RATIO)
    return np.asarray(ratios > limit)


def listed(things: Iterable[object]) -> str:
    """Return a list for a message: the first items, and how many there are."""
    texts = [str(thing) for thing in things]
    more = f", ... ({len(texts)} in all)" if len(texts) > MAX_LISTED else ""
    return f"{', '.join(texts[:MAX_LISTED])}{more}"


def one_digit(value: float) -> float:
    """Round to one significant digit."""
    return float(f"{value:.0e}")
