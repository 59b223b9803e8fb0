"""The diagnosis while a run trains: alarms, as soon as the recorder has flushed its steps.

A :class:`Detector` applies the rules to one :class:`Block` after the other, on the CPU and never
during a step. It counts recorded steps, which are fewer than the optimiser's where the recorder
leaves some out.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from convtrain.gradients.diagnosis.baseline import NormBaseline
from convtrain.gradients.diagnosis.rules import (
    BASELINE_WARMUP_STEPS,
    CLIP_RATIO,
    DEAD,
    EXPLODING,
    LOSS,
    MAX_SEPARATE_ALARMS,
    NEGLIGIBLE,
    NO_GRADIENT,
    NONFINITE,
    PATIENCE_STEPS,
    STILL,
    VANISHING,
    Alarm,
    Rule,
    is_vanishing,
    listed,
    one_digit,
)
from convtrain.gradients.layers import layer_norms, layer_of

Facts = tuple[int, str | None, dict[str, object]]
"""The row of a troubled step in its block, the parameter at fault, and what the rule says of it."""


@dataclass(frozen=True, eq=False)
class Block:
    """What one flush of the recorder wrote: a row for each of S optimiser steps, in order.

    Args:
        names: the P parameters; later blocks may have more, or others.
        steps: columns of length S: ``step``, counted from 1; ``norm``, the L2 norm of all gradients
            before clipping; ``skipped`` by the loss scaler; ``nonfinite``, how many parameters have
            NaN or infinity in their gradient, and ``first_nonfinite``, the name of the first or
            None; ``loss``, and ``loss_known``.
        norms: float64 (S, P), L2 norm of each gradient; NaN where there is none.
        present: bool (S, P), whether there is a gradient at all.
        images: for each step, the dataset's indices of its images; empty where unknown.
        fingerprints: float64 (P,), any number that changes when the weights do, taken at the flush;
            NaN where unknown.
        zero_filters: by a convolution's weight, bool (filters,): whether the filter's gradient
            was exactly zero in every step of the block.
    """

    names: Sequence[str]
    steps: Mapping[str, np.ndarray]
    norms: np.ndarray
    present: np.ndarray
    images: Sequence[Sequence[int]] = ()
    fingerprints: np.ndarray | None = None
    zero_filters: Mapping[str, np.ndarray] = field(default_factory=dict)


class Lasting(NamedTuple):
    """A condition that held in a number of recorded steps up to this one."""

    step: int
    name: str
    steps: int


class Detector:
    """Raises an alarm for each trouble in a run, block after block.

    An alarm is repeated when the trouble was gone for ``patience_steps``; or, if it lasts, after
    ``patience_steps`` more, then after twice as many, and so on.

    Attributes:
        troubled_steps: by rule, in how many steps all gradients together, or the loss, were in
            trouble.
    """

    def __init__(
        self,
        *,
        warmup_steps: int = BASELINE_WARMUP_STEPS,
        patience_steps: int = PATIENCE_STEPS,
    ) -> None:
        self.troubled_steps: Counter[str] = Counter()
        self._patience = patience_steps
        self._baseline = NormBaseline(warmup_steps)
        # By rule and name: the last step in trouble, when the next alarm is due, and the wait.
        self._reports: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._runs: dict[str, dict[str, int]] = {}  # by rule and name, in how many steps in a row
        self._filter_runs: dict[str, list[int]] = {}
        self._fingerprints: dict[str, float] = {}

    def look(self, block: Block) -> list[Alarm]:
        """Return the alarms of a block, in the order of steps; blocks come in order too."""
        if not len(block.steps["step"]):
            return []
        usable = ~block.steps["skipped"] & ~NONFINITE.holds(block.steps["nonfinite"])
        alarms = [*self._about_steps(block, usable)]
        if block.names:
            counted = usable[:, None] & block.present & np.isfinite(block.norms)
            alarms += self._about_names(block, counted)
            alarms += self._about_filters(block, counted)
        return sorted(alarms, key=lambda alarm: alarm.step)

    def state_dict(self) -> dict[str, object]:
        """Return what the detector remembers, as dicts, lists, strings and numbers."""
        return {
            "usual": self._baseline.state_dict(),
            "reports": [[*key, *value] for key, value in self._reports.items()],
            "runs": {rule: dict(runs) for rule, runs in self._runs.items()},
            "filter_runs": {name: list(runs) for name, runs in self._filter_runs.items()},
            "fingerprints": dict(self._fingerprints),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._baseline.load_state_dict(state["usual"])
        self._reports = {(rule, name): (*told,) for rule, name, *told in state["reports"]}
        self._runs = {rule: dict(runs) for rule, runs in state["runs"].items()}
        self._filter_runs = {name: list(runs) for name, runs in state["filter_runs"].items()}
        self._fingerprints = dict(state["fingerprints"])

    # --- rules on all gradients of a step ---------------------------------------------------------

    def _about_steps(self, block: Block, usable: np.ndarray) -> Iterator[Alarm]:
        for rule, found in (
            (NONFINITE, self._nonfinite(block)),
            (LOSS, self._lost(block, usable)),
            (EXPLODING, self._exploding(block, usable)),
        ):
            for row, parameter, facts in found:
                step = int(block.steps["step"][row])
                self.troubled_steps[rule.name] += 1
                if self._is_due(rule.name, "", step):
                    yield rule.alarm(step, parameter, **facts)

    def _nonfinite(self, block: Block) -> Iterator[Facts]:
        counts = block.steps["nonfinite"]
        for row in np.flatnonzero(~block.steps["skipped"] & NONFINITE.holds(counts)).tolist():
            first = block.steps["first_nonfinite"][row]
            images = block.images[row] if block.images else ()
            where = f", at images {listed(images)}" if images else ""
            yield row, first, {"who": f"{and_others(first, counts[row])}{where}"}

    def _lost(self, block: Block, usable: np.ndarray) -> Iterator[Facts]:
        loss, known = block.steps["loss"], block.steps["loss_known"]
        for row in np.flatnonzero(usable & known & ~np.isfinite(loss)).tolist():
            yield row, None, {"loss": loss[row]}

    def _exploding(self, block: Block, usable: np.ndarray) -> Iterator[Facts]:
        for row in np.flatnonzero(usable).tolist():
            norm, norms = float(block.steps["norm"][row]), block.norms[row]
            if (usual := self._baseline.exceeded_by(norm)) is not None:
                most = (
                    f", most in {block.names[int(np.nanargmax(norms))]}"
                    if (norms > 0).any()
                    else ""
                )
                clip = one_digit(CLIP_RATIO * usual)
                facts = {"norm": norm, "ratio": norm / usual, "usual": usual, "largest": most}
                yield row, None, {**facts, "clip": clip}

    # --- rules on layers and parameters -----------------------------------------------------------

    def _about_names(self, block: Block, counted: np.ndarray) -> Iterator[Alarm]:
        layers, norms, _ = layer_norms(block.names, block.norms, counted)
        layer = [layers.index(layer_of(name)) for name in block.names]
        alive = counted & (block.norms > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = block.norms / norms[:, layer]
        unmoved, known = self._unmoved(block)
        for rule, names, holds, counts in (
            (VANISHING, layers, is_vanishing(norms), norms > 0),
            (NEGLIGIBLE, block.names, NEGLIGIBLE.holds(ratios), alive),
            (DEAD, block.names, DEAD.holds(block.norms), counted),
            (STILL, block.names, np.broadcast_to(unmoved, alive.shape), alive & known),
        ):
            found = self._lasting(rule, block.steps["step"], names, holds & counts, counts)
            yield from _alarms(rule, found, names, block)

    def _unmoved(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return which weights are as they were at the last flush, and of which this is known."""
        if block.fingerprints is None:
            return np.zeros(len(block.names), bool), np.zeros(len(block.names), bool)
        known = np.isfinite(block.fingerprints)
        marks = dict(zip(block.names, block.fingerprints.tolist(), strict=True))
        unmoved = np.array([self._fingerprints.get(name) == mark for name, mark in marks.items()])
        self._fingerprints |= {name: mark for name, mark in marks.items() if math.isfinite(mark)}
        moved = np.array(block.names)[known & ~unmoved].tolist()
        self._runs.setdefault(STILL.name, {}).update(dict.fromkeys(moved, 0))
        return unmoved, known

    def _lasting(
        self,
        rule: Rule,
        steps: np.ndarray,
        names: Sequence[str],
        holds: np.ndarray,
        counted: np.ndarray,
    ) -> list[Lasting]:
        """Return what has lasted for ``patience_steps`` and is to be reported.

        Steps that are not counted neither lengthen nor end what lasts.
        """
        known = self._runs.setdefault(rule.name, {})
        if not holds.any():  # as in nearly every block
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
            # Without any living filter the parameter is dead, which has an alarm of its own.
            if dead and not zero.all() and self._is_due("dead filters", name, step, first):
                who = f"{len(dead)} of {len(zero)} filters of {name} ({listed(dead)})"
                least = min(runs[number] for number in dead)
                yield DEAD.alarm(step, name, who=who, when=f"in {least} recorded steps")

    def _is_due(self, rule: str, name: str, step: int, first: int | None = None) -> bool:
        """Take note of trouble from ``first`` to ``step``; return whether to raise an alarm."""
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


def _alarms(
    rule: Rule, found: Sequence[Lasting], names: Sequence[str], block: Block
) -> Iterator[Alarm]:
    """Make an alarm of each layer or parameter, or one alarm of all if they are many."""
    if rule == DEAD and len(found) >= block.present[-1].sum():
        rule = replace(rule, advice=NO_GRADIENT.advice)
    if len(found) <= MAX_SEPARATE_ALARMS:
        for step, name, steps in found:
            yield rule.alarm(step, name, who=name, when=f"in {steps} recorded steps")
        return
    who = list(dict.fromkeys(one.name for one in found))
    what = "layers" if rule == VANISHING else "parameters"
    of_all = f"{len(who)} of {len(names)} {what}, such as {who[0]} and {who[-1]}"
    least, last = min(one.steps for one in found), max(one.step for one in found)
    when = f"in at least {least} recorded steps each up to step {last}"
    yield rule.alarm(found[0].step, who[0], who=of_all, when=when)
