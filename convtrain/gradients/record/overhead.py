"""Measure what recording costs, and thin the plan to keep within a limit."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from convtrain.gradients.record.schedule import DETAILS, Plan

ALWAYS_ALLOWED_SECONDS = 1.0  # recording time, however short the training is
SECONDS_BETWEEN_DECISIONS = 0.5
COLD_START_SECONDS = 5.0  # recording time; a first flush below it predicts nothing
TOLERANCE = 1.1  # times the share, since costs are estimates


class Overhead:
    """A stopwatch for the training thread: ``with overhead:`` encloses all recording.

    Work on an accelerator counts only while the host waits for it, which recording avoids.
    ``by_detail`` holds the part of ``seconds`` for statistics, distributions and tensors.
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.seconds = 0.0
        self.by_detail: defaultdict[str, float] = defaultdict(float)
        self.began = time.perf_counter()

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._entered

    @contextmanager
    def of(self, detail: str) -> Iterator[None]:
        """Attribute the block's time, which ``seconds`` already counts, to a detail."""
        began = time.perf_counter()
        yield
        self.by_detail[detail] += time.perf_counter() - began

    def add(self, detail: str, seconds: float) -> None:
        """Count time that a detail took outside of ``with overhead:``."""
        self.seconds += seconds
        self.by_detail[detail] += seconds

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def share(self) -> float:
        """Return the fraction of the time since the start that recording took."""
        return self.seconds / max(self.elapsed(), 1e-9)


class Budget:
    """Thins a plan so that recording keeps within a share of the training time, in 0-1.

    The total time includes recording. If recording took too much before a decision, the remaining
    steps make up for it. ``first`` is the step before the training's first.
    """

    def __init__(self, share: float, overhead: Overhead, first: int, last: int) -> None:
        self.share, self._overhead, self._last_step = share, overhead, last
        self._step, self._elapsed, self._seconds = first, 0.0, 0.0
        self._by_detail: dict[str, float] = {}

    def fit(self, plan: Plan, step: int) -> Plan:
        """Return the plan for the next steps, with the most expensive details thinned first."""
        overhead, elapsed = self._overhead, self._overhead.elapsed()
        if not self._elapsed and overhead.seconds < COLD_START_SECONDS:
            self._mark(step, elapsed)  # the first steps take longer than all others
            return plan
        passed = elapsed - self._elapsed
        if overhead.seconds < ALWAYS_ALLOWED_SECONDS or passed < SECONDS_BETWEEN_DECISIONS:
            return plan
        if step <= self._step or self.share >= 1:
            return plan
        left = max(self._last_step - step, 0)
        spent = overhead.seconds - self._seconds
        training = (passed - spent) / (step - self._step) * left
        costs = self._costs_ahead(plan, step, spent)
        allowed = (self.share * (elapsed - overhead.seconds + training)) / (1 - self.share)
        allowed -= overhead.seconds
        self._mark(step, elapsed)
        recording = overhead.seconds + sum(costs.values())
        total = elapsed - overhead.seconds + training + recording
        if recording <= TOLERANCE * self.share * total:
            return plan
        for detail in reversed(DETAILS):
            if detail == "norms":  # alarms need them; they do not pay for other details
                allowed = max(allowed, self.share * training / (1 - self.share))
            excess = sum(costs.values()) - allowed
            if excess <= 0:
                break
            if cost := costs.get(detail):
                kept = max(1 - excess / cost, 0.0)
                plan = _thinned(plan, detail, kept, step, self._last_step)
                costs[detail] = cost * kept
        return plan

    def _mark(self, step: int, elapsed: float) -> None:
        self._step, self._elapsed, self._seconds = step, elapsed, self._overhead.seconds
        self._by_detail = dict(self._overhead.by_detail)

    def _costs_ahead(self, plan: Plan, step: int, spent: float) -> dict[str, float]:
        by_detail = self._overhead.by_detail
        recent = {d: by_detail[d] - self._by_detail.get(d, 0.0) for d in DETAILS if d != "norms"}
        recent["norms"] = max(spent - sum(recent.values()), 0.0)  # all that no other detail took
        costs = {}
        for detail, sampling in plan.samplings.items():
            done = sampling.count(step) - sampling.count(self._step)
            ahead = sampling.count(self._last_step) - sampling.count(step)
            costs[detail] = recent[detail] / max(done, 1) * ahead
        return costs


def _thinned(plan: Plan, detail: str, kept: float, step: int, last_step: int) -> Plan:
    sampling = plan.samplings[detail]
    every = math.ceil(sampling.every_n_steps / kept) if kept else 0
    thinner = sampling.model_copy(update={"every_n_steps": every, "first_n_steps": 0})
    is_due = every and thinner.count(last_step) > thinner.count(step)
    return plan.with_sampling(detail, thinner if is_due else None)
