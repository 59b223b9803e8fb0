"""Compare each step's gradient norm with the usual norm, and detect explosions."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from convtrain.gradients.diagnosis import rules

MAD_TO_STD = 1.4826  # for a normal distribution
LARGE, SUDDEN = math.log(rules.MAX_RATIO_TO_MEDIAN), math.log(rules.MAX_RATIO_TO_RECENT)


class NormBaseline:
    """Log norms of the last normal steps, with which a new norm is compared.

    A norm explodes when its logarithm is too many robust standard deviations above the median
    (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993) and it exceeds the median of
    the first steps. During the warm-up, and where the norm grows gradually, it must exceed
    ``MAX_RATIO_TO_MEDIAN`` times the usual norm instead. A norm that stays high for as many steps
    as the warm-up becomes the usual norm.
    """

    def __init__(self) -> None:
        self._normal: list[float] = []
        self._start: list[float] = []  # the first normal steps
        self._high: list[float] = []  # high norms since the last normal step

    def exceeded_by(self, norm: float) -> float | None:
        """Add a norm; return the usual norm, the median, if this one explodes."""
        if not norm > 0 or (norm == math.inf and not self._normal):
            return None  # zero and NaN have no logarithm
        value = math.log(norm)
        if not self._explodes(value):
            self._high = []
            self._normal.append(value)
            del self._normal[: -rules.BASELINE_STEPS]
            if len(self._start) < rules.BASELINE_WARMUP_STEPS:
                self._start.append(value)
            return None
        usual = math.exp(median(self._normal))
        if math.isfinite(value):
            self._high.append(value)
        if len(self._high) >= rules.BASELINE_WARMUP_STEPS:
            self._normal, self._high = self._high, []
        return usual

    def _explodes(self, value: float) -> bool:
        recent = self._normal[-rules.BASELINE_RECENT_STEPS :]
        sudden = value > max(recent, default=value) + SUDDEN
        # Nearly all steps return here: the medians below cost more than all the rest.
        if not sudden and value <= min(self._normal, default=value) + LARGE:
            return False
        middle, trusted = median(self._normal), len(self._normal) >= rules.BASELINE_WARMUP_STEPS
        if value <= median(self._start) or not (value > middle + LARGE or (sudden and trusted)):
            return False
        mad = max(rules.MIN_LOG_NORM_MAD, median(abs(known - middle) for known in self._normal))
        return not trusted or bool(rules.EXPLODING.holds((value - middle) / (MAD_TO_STD * mad)))

    def state_dict(self) -> dict[str, list[float]]:
        return {"normal": [*self._normal], "start": [*self._start], "high": [*self._high]}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        self._normal = list(state["normal"][-rules.BASELINE_STEPS :])
        self._start, self._high = list(state["start"]), list(state["high"])
