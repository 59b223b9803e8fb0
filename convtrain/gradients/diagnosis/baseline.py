"""How large the norm of all gradients together usually is, and whether a new one explodes."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

MAD_TO_DEVIATION = 1.4826  # of a normal distribution
LEAST_MAD = 0.2  # of log norms; below it, a flat series would make an explosion of a ripple
LARGE, SUDDEN = math.log(100), math.log(3)  # above the median, and above any of the RECENT steps
RECENT = 10


class NormBaseline:
    """Log norms of the last normal steps, to which a new one is compared.

    Three sequences: ``normal`` steps, the latest ``window`` of them; the first normal ones, of the
    ``start``; and the ``high`` ones since the last normal step. When the norm stays high for
    ``warmup`` steps, that is what is normal from then on.
    """

    def __init__(self, window: int, warmup: int, threshold: float) -> None:
        self.window, self.warmup, self.threshold = window, warmup, threshold
        self.normal: list[float] = []
        self.start: list[float] = []
        self.high: list[float] = []

    def exceeded_by(self, norm: float) -> float | None:
        """Take note of a norm; return the usual one, the median, if this one explodes."""
        if not norm > 0 or (norm == math.inf and not self.normal):
            return None  # zero and NaN have no logarithm
        value = math.log(norm)
        if not self._explodes(value):
            self.high = []
            self.normal.append(value)
            del self.normal[: -self.window]
            if len(self.start) < self.warmup:
                self.start.append(value)
            return None
        usual = math.exp(median(self.normal))
        if math.isfinite(value):
            self.high.append(value)
        if len(self.high) >= self.warmup:
            self.normal, self.high = self.high, []
        return usual

    def _explodes(self, value: float) -> bool:
        sudden = value > max(self.normal[-RECENT:], default=value) + SUDDEN
        # Nearly all steps end here, without the median, which costs more than all the rest.
        if not sudden and value <= min(self.normal, default=value) + LARGE:
            return False
        middle, trusted = median(self.normal), len(self.normal) >= self.warmup
        if value <= median(self.start) or not (value > middle + LARGE or (sudden and trusted)):
            return False
        mad = max(LEAST_MAD, median(abs(known - middle) for known in self.normal))
        return not trusted or value > middle + self.threshold * MAD_TO_DEVIATION * mad

    def state_dict(self) -> dict[str, list[float]]:
        return {"normal": [*self.normal], "start": [*self.start], "high": [*self.high]}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        self.normal = list(state["normal"][-self.window :])
        self.start, self.high = list(state["start"]), list(state["high"])
