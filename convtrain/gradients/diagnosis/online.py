"""Raise alarms while a run trains, from the steps of each flush, on the CPU."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from convtrain.gradients.diagnosis import rules
from convtrain.gradients.diagnosis.baseline import NormBaseline
from convtrain.gradients.diagnosis.rules import Alarm, Rule, listed
from convtrain.gradients.layers import layer_norms, layer_of


@dataclass(frozen=True)
class Block:
    """Steps (S) in a row, of all parameters (P) or of none, as arrays.

    Attributes:
        steps: columns of the table of steps (S,), and ``loss_known``.
        norms: float64 (S, P), NaN without a gradient; ``present`` tells that from a NaN gradient.
        images: dataset indices by step, empty if unknown.
        fingerprints: float64 (P,), which change when the weights do; NaN means unknown.
        zero_filters: by a convolution's weight, bool (filters,): whether the filter's gradient was
            exactly zero in every step.
    """

    names: tuple[str, ...]
    steps: Mapping[str, np.ndarray]
    norms: np.ndarray
    present: np.ndarray
    images: Sequence[Sequence[int]] = ()
    fingerprints: np.ndarray | None = None
    zero_filters: Mapping[str, np.ndarray] = field(default_factory=dict)


class Lasting(NamedTuple):
    """A condition that held in ``steps`` recorded steps in a row, up to ``step``."""

    step: int
    name: str
    steps: int

    @property
    def when(self) -> str:
        return f"in {self.steps} recorded steps"


class Detector:
    """Raises an alarm for each trouble in a run, block after block.

    An alarm is repeated when trouble returns after more than ``patience_steps`` without it. While
    trouble lasts, the wait until its next alarm starts at ``patience_steps`` and doubles each time.
    """

    def __init__(self, *, patience_steps: int = rules.PATIENCE_STEPS) -> None:
        self.troubled_steps: Counter[Rule] = Counter()
        self._patience = patience_steps
        self._baseline = NormBaseline()
        # By rule and name: last step in trouble, step of the next alarm, steps to wait after it.
        self._reports: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._runs: dict[str, dict[str, int]] = {}  # by rule and name: steps in a row
        self._filter_runs: dict[str, list[int]] = {}
        self._fingerprints: dict[str, float] = {}

    def look(self, block: Block) -> list[Alarm]:
        """Return the alarms of a block in the order of steps; blocks must come in order too."""
        if not len(block.norms):
            return []
        usable = ~block.steps["skipped"] & ~rules.NONFINITE.holds(block.steps["nonfinite"])
        alarms = [*self._about_steps(block, usable)]
        if block.names:
            counted = usable[:, None] & block.present & np.isfinite(block.norms)
            alarms += self._about_names(block, counted)
            alarms += self._about_filters(block, counted)
        return sorted(alarms, key=lambda alarm: alarm.step)

    def state_dict(self) -> dict[str, object]:
        """Return the state as dicts, lists, strings and numbers, for the checkpoint."""
        state: dict[str, object] = {
            "usual": self._baseline.state_dict(),
            "reports": [[*key, *value] for key, value in self._reports.items()],
            "runs": self._runs,
            "filter_runs": self._filter_runs,
            "fingerprints": self._fingerprints,
        }
        return deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._baseline.load_state_dict(state["usual"])
        self._reports = {(rule, name): (*told,) for rule, name, *told in state["reports"]}
        self._runs, self._filter_runs = deepcopy((state["runs"], state["filter_runs"]))
        self._fingerprints = dict(state["fingerprints"])

    def _about_steps(self, block: Block, usable: np.ndarray) -> Iterator[Alarm]:
        steps = block.steps
        nonfinite = ~steps["skipped"] & rules.NONFINITE.holds(steps["nonfinite"])
        for row in np.flatnonzero(nonfinite).tolist():
            if self._reports_step(rules.NONFINITE, step := int(steps["step"][row])):
                first, images = steps["first_nonfinite"][row], block.images and block.images[row]
                where = f", at images {listed(images)}" if images else ""
                who = f"{and_others(first, steps['nonfinite'][row])}{where}"
                yield rules.NONFINITE.alarm(step, first, who=who)
        lost = usable & steps["loss_known"] & ~np.isfinite(steps["loss"])
        for row in np.flatnonzero(lost).tolist():
            if self._reports_step(rules.LOSS, step := int(steps["step"][row])):
                yield rules.LOSS.alarm(step, None, loss=steps["loss"][row])
        for row in np.flatnonzero(usable).tolist():
            norm, norms = float(steps["norm"][row]), block.norms[row]
            usual, step = self._baseline.exceeded_by(norm), int(steps["step"][row])
            if usual is None or not self._reports_step(rules.EXPLODING, step):
                continue
            largest = ""
            if (norms > 0).any():
                largest = f", most in {block.names[int(np.nanargmax(norms))]}"
            clip = rules.one_digit(rules.CLIP_RATIO * usual)
            facts = {"norm": norm, "ratio": norm / usual, "usual": usual, "clip": clip}
            yield rules.EXPLODING.alarm(step, None, largest=largest, **facts)

    def _reports_step(self, rule: Rule, step: int) -> bool:
        self.troubled_steps[rule] += 1
        return self._is_due(rule.name, "", step)

    def _about_names(self, block: Block, counted: np.ndarray) -> Iterator[Alarm]:
        layers, norms, _ = layer_norms(block.names, block.norms, counted)
        vanishing = rules.are_far(1 / rules.layer_ratios(norms))
        alive = counted & (block.norms > 0)
        columns = {layer: column for column, layer in enumerate(layers)}
        own_layer = norms[:, [columns[layer_of(name)] for name in block.names]]
        negligible = rules.NEGLIGIBLE.holds(
            np.divide(block.norms, own_layer, out=np.ones_like(own_layer), where=alive)
        )
        unmoved, known = self._unmoved(block)
        for rule, names, holds, counts in (
            (rules.VANISHING, layers, vanishing, norms > 0),
            (rules.NEGLIGIBLE, block.names, negligible, alive),
            (rules.DEAD, block.names, rules.DEAD.holds(block.norms), counted),
            (rules.STILL, block.names, unmoved & alive, alive & known),
        ):
            found = self._lasting(rule, block.steps["step"], names, holds & counts, counts)
            if rule == rules.DEAD and found and len(found) >= block.present[-1].sum():
                yield rules.NO_GRADIENT.alarm(found[0].step, None, when=found[0].when)
            elif len(found) <= rules.MAX_SEPARATE_ALARMS:
                yield from (rule.alarm(f.step, f.name, who=f.name, when=f.when) for f in found)
            else:
                who = list(dict.fromkeys(f.name for f in found))
                what = "layers" if names is layers else "parameters"
                some = f"{len(who)} of {len(names)} {what}, such as {who[0]} and {who[-1]}"
                least, last = min(f.steps for f in found), max(f.step for f in found)
                when = f"in at least {least} recorded steps each up to step {last}"
                yield rule.alarm(found[0].step, who[0], who=some, when=when)

    def _unmoved(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        marks = np.full(len(block.names), np.nan)
        if block.fingerprints is not None:
            marks = block.fingerprints
        before = np.array([self._fingerprints.get(name, np.nan) for name in block.names])
        known = np.isfinite(marks)
        runs = self._runs.setdefault(rules.STILL.name, {})
        for column in np.flatnonzero(known).tolist():
            name = block.names[column]
            self._fingerprints[name] = float(marks[column])
            if marks[column] != before[column]:
                runs[name] = 0
        return marks == before, known

    def _lasting(
        self,
        rule: Rule,
        steps: np.ndarray,
        names: Sequence[str],
        holds: np.ndarray,
        counted: np.ndarray,
    ) -> list[Lasting]:
        """Return what has held for ``patience_steps``; steps not counted do not end it."""
        known = self._runs.setdefault(rule.name, {})
        if not holds.any():  # nearly every block
            known.update(dict.fromkeys(np.array(names)[counted.any(axis=0)].tolist(), 0))
            return []
        run = np.array([known.get(name, 0) for name in names], np.int64)
        runs = np.zeros(holds.shape, np.int64)
        for row in range(len(runs)):
            run = np.where(counted[row], np.where(holds[row], run + 1, 0), run)
            runs[row] = run
        known.update(zip(names, run.tolist(), strict=True))
        return [
            Lasting(int(steps[row]), names[column], int(runs[row, column]))
            for row, column in np.argwhere(counted & (runs >= self._patience)).tolist()
            if self._is_due(rule.name, names[column], int(steps[row]))
        ]

    def _about_filters(self, block: Block, counted: np.ndarray) -> Iterator[Alarm]:
        first, step = int(block.steps["step"][0]), int(block.steps["step"][-1])
        steps = dict(zip(block.names, counted.sum(0).tolist(), strict=True))
        for name, zero in block.zero_filters.items():
            if not (new := steps.get(name, 0)):
                continue
            before = self._filter_runs.get(name) or [0] * len(zero)
            runs = [run + new if z else 0 for run, z in zip(before, zero.tolist(), strict=True)]
            self._filter_runs[name] = runs
            dead = [number for number, run in enumerate(runs) if run >= self._patience]
            # If all filters are dead, the alarm of the whole parameter reports it.
            if dead and not zero.all() and self._is_due("dead filters", name, step, first):
                who = f"{len(dead)} of {len(zero)} filters of {name} ({listed(dead)})"
                lasting = Lasting(step, name, min(runs[number] for number in dead))
                yield rules.DEAD.alarm(step, name, who=who, when=lasting.when)

    def _is_due(self, rule: str, name: str, step: int, first: int | None = None) -> bool:
        """Note trouble from ``first`` to ``step``; return whether to raise an alarm."""
        last, due, wait = self._reports.get((rule, name), (-math.inf, 0, 0))
        if (step if first is None else first) - last > self._patience:
            due, wait = step, self._patience
        is_due = step >= due
        self._reports[rule, name] = (step, step + wait, 2 * wait) if is_due else (step, due, wait)
        return is_due


def and_others(first: str | None, count: int) -> str:
    """Return ``stem.weight and 2 others`` for the first of three parameters."""
    others = f" and {count - 1} other{'s' if count > 2 else ''}" if count > 1 else ""
    return f"{first or 'some parameter'}{others}"
