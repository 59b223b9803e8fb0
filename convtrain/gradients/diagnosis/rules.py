"""The rules of the diagnosis: what counts as trouble, from which threshold on, and what to try.

Each rule is a row of :data:`RULES`. While a run trains, :mod:`convtrain.gradients.diagnosis.online`
applies the rules to every recorded step and raises alarms; at the run's end,
:mod:`convtrain.gradients.diagnosis.offline` applies them to the whole record and writes a line for
each that holds. Thresholds and words stand here and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

PATIENCE_STEPS = 100
"""Recorded steps in a row in which a rule on layers or parameters must hold to raise an alarm. An
alarm that lasts is repeated after as many steps, then after twice as many, and so on."""
MIN_TREND_STEPS, TREND_PARTS = 20, 10
"""A trend goes from the first tenth of at least so many steps to the last tenth."""
CLIP_QUANTILE, CLIP_RATIO = 0.95, 3.0
"""A limit for clipping is advised at this quantile of the norms, or this many times the usual."""

BASELINE_STEPS = 100
BASELINE_WARMUP_STEPS = 50
BASELINE_RECENT_STEPS = 10
MAX_ROBUST_Z_SCORE = 6.0
MIN_LOG_NORM_MAD = 0.2
MAX_RATIO_TO_MEDIAN = 100.0
MAX_RATIO_TO_RECENT = 3.0
"""How :class:`convtrain.gradients.diagnosis.baseline.NormBaseline` tells an explosion."""

MAX_FIRST_LAYER_RATIO = 100.0
MAX_LAYER_RATIO = 1000.0
"""Between the gradient norm of the first, or of any, layer and that of the last layer, either way.
A batch norm's is often a hundredth of the last layer's in a healthy network."""
MIN_RATIO_TO_LAYER = 1e-7
MAX_NORM_GROWTH = 10.0
MAX_CLIPPED_FRACTION = 0.5
MAX_SKIPPED_FRACTION = 0.1
MIN_UPDATE_RATIO, MAX_UPDATE_RATIO = 1e-5, 5e-2
TYPICAL_UPDATE_RATIO = 1e-3

MAX_LISTED = 8
MAX_SEPARATE_ALARMS = 4
"""Names in one message, and alarms of one rule for one flush; more of them become one alarm."""


@dataclass(frozen=True)
class Alarm:
    """One trouble, found at one step.

    Args:
        kind: the name of the rule.
        step: the optimiser step, counted from 1.
        parameter: the parameter or layer, the first one where there are several; None where the
            alarm is about all gradients together.
        message: one line with the step, what was found and what to try.
    """

    kind: str
    step: int
    parameter: str | None
    message: str


@dataclass(frozen=True)
class Rule:
    """What counts as trouble.

    Args:
        name: the ``kind`` of its alarms, and the first word of its line at the end of a run.
        quantity: what is compared with the threshold.
        threshold: the quantity is trouble above it, or at and below it where ``is_minimum``.
        says, advice: what was found and what to try: templates of ``str.format``.
        applied: ``online`` raises alarms, ``offline`` looks at the whole record.
    """

    name: str
    quantity: str
    threshold: float
    says: str
    advice: str
    is_minimum: bool = False
    applied: Literal["online", "offline", "both"] = "both"

    def holds(self, values: np.ndarray | float) -> np.ndarray:
        """Return where there is trouble; nowhere where the value is NaN."""
        return np.asarray(values <= self.threshold if self.is_minimum else values > self.threshold)

    def finding(self, **facts: object) -> str:
        text = f"{self.says}; {self.advice}"
        return text.format(threshold=self.threshold, **facts)

    def alarm(self, step: int, parameter: str | None, **facts: object) -> Alarm:
        return Alarm(self.name, step, parameter, f"step {step}: {self.finding(**facts)}")

    def line(self, **facts: object) -> str:
        return f"{self.title}: {self.finding(**facts)}."

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()


RULES = (
    NONFINITE := Rule(
        "nonfinite",
        quantity="parameters with NaN or infinity in the gradient of a step",
        threshold=0,
        says="NaN or infinity in the gradient of {who}",
        advice="try a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32",
    ),
    LOSS := Rule(
        "loss",
        quantity="NaN or infinity in the loss of a step with finite gradients",
        threshold=0,
        says="the loss is {loss:g}, although all gradients are finite",
        advice="try a lower optimizer.lr or trainer.precision=32",
    ),
    EXPLODING := Rule(
        "exploding",
        quantity="robust z-score of the logarithm of the total norm",
        threshold=MAX_ROBUST_Z_SCORE,
        says="gradient norm {norm:.3g}, {ratio:.3g} times the usual {usual:.3g}{largest}",
        advice="try a lower optimizer.lr or trainer.gradient_clip_val={clip:g}",
    ),
    NO_GRADIENT := Rule(
        "no_gradient",
        quantity="largest total norm of the run",
        threshold=0,
        says="all gradients are exactly zero in every step",
        advice="does the loss depend on the weights? Try another init or a lower optimizer.lr",
        is_minimum=True,
        applied="offline",
    ),
    DEAD := Rule(
        "dead",
        quantity="gradient norm of a parameter, or of a filter of a convolution",
        threshold=0,
        says="{who}: gradient exactly zero {when}",
        advice="try a lower optimizer.lr, LeakyReLU in place of ReLU, or BatchNorm2d before it",
        is_minimum=True,
    ),
    VANISHING := Rule(
        "vanishing",
        quantity="gradient norm of a layer / that of the last layer",
        threshold=1 / MAX_FIRST_LAYER_RATIO,
        says="{who}: gradient norm below {threshold:g}x the last layer's {when}",
        advice="try BatchNorm2d or Residual in the network, ReLU for Sigmoid or Tanh, or init with "
        "kaiming_normal",
        is_minimum=True,
    ),
    EXPLODING_BACKWARDS := Rule(
        "exploding_backwards",
        quantity="gradient norm of a layer / that of the last layer",
        threshold=MAX_FIRST_LAYER_RATIO,
        says="{who}: gradient norm above {threshold:g}x the last layer's {when}",
        advice="try BatchNorm2d in the network, init with kaiming_normal or orthogonal, or "
        "trainer.gradient_clip_val=1",
        applied="offline",
    ),
    NEGLIGIBLE := Rule(
        "negligible",
        quantity="gradient norm of a parameter / that of its layer",
        threshold=MIN_RATIO_TO_LAYER,
        says="{who}: gradient norm below {threshold:g}x its layer's {when}",
        advice="a bias right before a batch norm has no effect: write bias: false there",
        is_minimum=True,
        applied="online",
    ),
    STILL := Rule(
        "still",
        quantity="change of a parameter's weights between two flushes",
        threshold=0,
        says="{who}: the weights did not change, although they had a gradient, {when}",
        advice="is it in the optimiser, with a learning rate above 0? See optimizer.lr, scheduler",
        is_minimum=True,
        applied="online",
    ),
    SKIPPED := Rule(
        "skipped",
        # A loss scaler starts too high by design, and skips steps until its scale fits.
        quantity="fraction of the later half of the steps that the loss scaler skipped",
        threshold=MAX_SKIPPED_FRACTION,
        says="the loss scaler skipped {value:.0%} of the later half of the steps, because float16 "
        "overflowed",
        advice="try trainer.precision=bf16-mixed or a lower optimizer.lr",
        applied="offline",
    ),
    GROWING := Rule(
        "growing",
        quantity="median total norm in the last tenth of the steps / that in the first tenth",
        threshold=MAX_NORM_GROWTH,
        says="the gradient norm grew to {value:.3g}x from the first tenth of the steps to the last",
        advice="try a lower optimizer.lr, scheduler=cosine or trainer.gradient_clip_val={clip:g}",
        applied="offline",
    ),
    CLIPPED := Rule(
        "clipped",
        quantity="fraction of the steps whose gradient was clipped",
        threshold=MAX_CLIPPED_FRACTION,
        says="{value:.0%} of the steps were clipped, to {kept:.2g}x their norm in the median, so "
        "the limit sets the pace rather than optimizer.lr",
        advice="try {limit}a lower optimizer.lr",
        applied="offline",
    ),
    SLOW := Rule(
        "slow",
        quantity="norm of a step's change / norm of the weights",
        threshold=MIN_UPDATE_RATIO,
        says="a step changes the weights by only {value:.1e} of their norm",
        advice="try a higher optimizer.lr",
        is_minimum=True,
        applied="offline",
    ),
    HASTY := Rule(
        "hasty",
        quantity="norm of a step's change / norm of the weights",
        threshold=MAX_UPDATE_RATIO,
        says="a step changes the weights by {value:.1e} of their norm",
        advice="try a lower optimizer.lr",
        applied="offline",
    ),
)


def layer_ratios(norms: np.ndarray) -> np.ndarray:
    """Return each layer's gradient norm over that of the last layer with a gradient.

    Args:
        norms: (S, L), the layers in the network's order; NaN where there is no gradient.

    Returns:
        (S, L), NaN where the layer's gradient is zero or absent.
    """
    living = np.where(norms > 0, norms, np.nan)
    last = norms.shape[1] - 1 - np.argmax(norms[:, ::-1] > 0, axis=1)
    return living / np.take_along_axis(living, last[:, None], axis=1)


def is_vanishing(norms: np.ndarray) -> np.ndarray:
    """Tell for which layers :data:`VANISHING` holds; norms (S, L), NaN without a gradient."""
    return _are_far(1 / layer_ratios(norms))


def is_exploding_backwards(norms: np.ndarray) -> np.ndarray:
    """Tell for which layers :data:`EXPLODING_BACKWARDS` holds; norms as above."""
    return _are_far(layer_ratios(norms))


def _are_far(ratios: np.ndarray) -> np.ndarray:
    first = np.take_along_axis(ratios, np.argmax(ratios > 0, axis=1)[:, None], axis=1)
    # Where the first layer is too far away, so are all others beyond its limit.
    limit = np.where(first > MAX_FIRST_LAYER_RATIO, MAX_FIRST_LAYER_RATIO, MAX_LAYER_RATIO)
    return np.asarray(ratios > limit)


def listed(things: Iterable[object]) -> str:
    """Return a list for a message: the first few, and how many there are; ``0, 4, 7``."""
    texts = [str(thing) for thing in things]
    if len(texts) <= MAX_LISTED:
        return ", ".join(texts)
    return f"{', '.join(texts[:MAX_LISTED])}, ... ({len(texts)} in all)"


def one_digit(value: float) -> float:
    """Return a number rounded to one significant digit."""
    return float(f"{value:.0e}")
