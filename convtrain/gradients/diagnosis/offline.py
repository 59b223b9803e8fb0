"""Diagnose a run's whole gradient record in a few lines, with advice."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from convtrain.errors import MissingDataError
from convtrain.gradients.diagnosis import rules
from convtrain.gradients.diagnosis.online import Block, Detector
from convtrain.gradients.diagnosis.rules import Alarm, listed
from convtrain.gradients.reading import gather_norms, sampled, skipped_steps
from convtrain.gradients.record.store import TABLES, load_in_pieces

ROUNDING = 1e-4  # float32 rounding: a clip coefficient of 0.9999999 clips nothing


def diagnose_tables(steps: pa.Table, parameters: pa.Table) -> list[str]:
    """Diagnose a run by its tables, ``load(run, "steps")`` and ``load(run)``.

    All columns but ``step`` may be missing. The first line is on training, the second, if there is
    data, on layers and updates; each further line is a rule that holds, with advice.
    """
    return _diagnose([steps], [parameters])


def diagnose(run_dir: Path) -> list[str]:
    """Diagnose a run's whole record in bounded memory; return no lines if there is none.

    Counts are exact; the medians of a long run come from an evenly spread sample of its steps.
    """
    try:
        return _diagnose(*(load_in_pieces(run_dir, table) for table in ("steps", "parameters")))
    except MissingDataError:
        return []


def _diagnose(step_pieces: Iterable[pa.Table], parameter_pieces: Iterable[pa.Table]) -> list[str]:
    counts = _StepCounts()
    steps = _columns(sampled(map(counts.add, step_pieces)))
    parameters = sampled(parameter_pieces)
    if not counts.recorded:
        return ["No step was recorded."]
    norms = steps["norm"][steps["finite"]]
    layers, dead, update = _medians(parameters, counts.skipped_steps)
    troubles = [*_about_steps(counts, norms, steps["kept"][steps["clipped"]])]
    if dead:
        troubles.append(rules.DEAD.line(who=listed(dead), when="in the median step"))
    troubles += _about_layers(layers)
    for rule in (rules.SLOW, rules.HASTY):
        if rule.holds(update):
            troubles.append(rule.line(value=update))
    overview, details = _overview(counts, norms), " ".join(_details(counts, layers, update))
    if not troubles and (len(norms) or layers):
        overview = f"Healthy: {overview}"
    return [overview, *([details] if details else []), *troubles]


class _StepCounts:
    """Exact counts of a record's steps; ``clippable`` ones are neither skipped nor non-finite."""

    def __init__(self) -> None:
        self.recorded = self.first = self.last = self.clipped = self.clippable = 0
        self.skipped, self.skipped_steps = np.zeros(0, bool), np.zeros(0, np.int64)
        self.largest = (-np.inf, 0)
        self.detector, self.alarms = Detector(), dict[str, Alarm]()

    def add(self, table: pa.Table) -> pa.Table:
        """Count the steps of a piece of the table of steps, and return it unchanged."""
        if not table.num_rows:
            return table
        steps = _columns(table)
        step, norm = steps["step"], steps["norm"]
        self.first, self.last = self.first if self.recorded else int(step[0]), int(step[-1])
        self.recorded += len(step)
        self.skipped = np.append(self.skipped, steps["skipped"])
        self.skipped_steps = np.append(self.skipped_steps, skipped_steps(table))
        self.clippable += int(steps["usable"].sum())
        self.clipped += int(steps["clipped"].sum())
        finite = np.where(steps["finite"], norm, -np.inf)
        row = int(np.argmax(finite))
        self.largest = max(self.largest, (float(finite[row]), int(step[row])))
        nothing = np.zeros((len(step), 0))
        for alarm in self.detector.look(Block((), steps, nothing, nothing > 0)):
            self.alarms.setdefault(alarm.kind, alarm)
        return table


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return a :class:`Block`'s columns and masks; a table may lack any column but ``step``.

    ``kept`` is norm after clipping / norm before it, computed or recorded.
    """
    nothing = pa.chunked_array([pa.nulls(table.num_rows)])
    columns = dict.fromkeys(TABLES["steps"], nothing)
    columns |= {name: table[name] for name in table.column_names}

    def numbers(name: str) -> np.ndarray:
        return np.asarray(columns[name].cast(pa.float64()).to_numpy())

    norm, nonfinite = numbers("norm"), numbers("nonfinite")
    if "nonfinite" not in table.column_names and "norm" in table.column_names:
        nonfinite = ~np.isfinite(norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = numbers("clipped_norm") / norm
    kept = np.where(np.isfinite(kept), kept, numbers("clip_coefficient"))
    skipped = numbers("skipped") > 0
    usable = ~skipped & ~(nonfinite > 0)
    return {
        "step": numbers("step").astype(np.int64),
        "norm": norm,
        "skipped": skipped,
        "nonfinite": np.nan_to_num(nonfinite).astype(np.int64),
        "first_nonfinite": np.array(columns["first_nonfinite"].to_pylist(), object),
        "loss": numbers("loss"),
        "loss_known": ~np.asarray(columns["loss"].is_null()),
        "usable": usable,
        "finite": usable & np.isfinite(norm),
        "kept": kept,
        "clipped": usable & (kept < 1 - ROUNDING),
    }


def _medians(
    parameters: pa.Table, skipped: np.ndarray
) -> tuple[dict[str, float], list[str], float]:
    if "norm" not in parameters.column_names:
        return {}, [], np.nan
    norms = gather_norms(parameters, skipped)
    if not (norms.values > 0).any():
        return {}, [], np.nan
    medians = norms.medians()
    dead = [name for name, median in medians.items() if rules.DEAD.holds(median)]
    layers = {layer: norm for layer, norm in norms.by_layer().medians().items() if norm > 0}
    if "update_ratio" not in parameters.column_names:
        return layers, dead, np.nan
    ratios = gather_norms(parameters, column="update_ratio")
    # Biases are left out: they start at zero, so their ratio is large without an effect.
    known = [
        ratio
        for name, ratio in zip(ratios.names, ratios.over_steps(np.median), strict=True)
        if np.isfinite(ratio) and medians[name] > 0 and not name.endswith("bias")
    ]
    return layers, dead, float(np.median(known)) if known else np.nan


def _overview(counts: _StepCounts, norms: np.ndarray) -> str:
    recorded = counts.recorded
    steps = f"{recorded} step{'s' if recorded > 1 else ''}"
    parts = [f"{steps} recorded ({counts.first} to {counts.last})"]
    if skipped := len(counts.skipped_steps):
        parts.append(f"{skipped} of them skipped by the loss scaler")
    nonfinite = counts.detector.troubled_steps[rules.NONFINITE]
    parts.append(f"{nonfinite or 'none'} with NaN or infinity")
    if len(norms):
        trend = ""
        if len(norms) >= rules.MIN_TREND_STEPS:
            trend = " ({:.3g} in the first tenth, {:.3g} in the last)".format(*_ends(norms))
        parts.append(f"median gradient norm {np.median(norms):.3g}{trend}")
        parts.append("largest {:.3g} at step {}".format(*counts.largest))
    return f"{', '.join(parts)}."


def _details(counts: _StepCounts, layers: dict[str, float], update: float) -> Iterator[str]:
    if len(layers) > 1:
        first, *_, last = layers
        ratio = layers[first] / layers[last]
        rule, verb, side = rules.VANISHING, "falls", "below"
        if ratio >= 1:
            rule, verb, side = rules.EXPLODING_BACKWARDS, "grows", "above"
        limit, trouble = f"{side} {rule.threshold:g}x", rule.title.lower()
        holds = rule.holds(ratio)
        state = f"{trouble} ({limit})" if holds else f"healthy ({limit} would be {trouble})"
        route = f"from {last} (last) to {first} (first)"
        yield f"Gradient norm {verb} to {ratio:.2g}x {route}: {state}."
    if np.isfinite(update):
        typical = f"{rules.TYPICAL_UPDATE_RATIO:.0e} is typical"
        yield f"A step changes the weights by {update:.1e} of their norm ({typical})."
    if counts.clipped:
        yield f"{counts.clipped / counts.clippable:.1%} of the steps were clipped."


def _about_steps(counts: _StepCounts, norms: np.ndarray, kept: np.ndarray) -> Iterator[str]:
    for rule in (rules.NONFINITE, rules.LOSS, rules.EXPLODING):
        if (alarm := counts.alarms.get(rule.name)) is not None:
            troubled = counts.detector.troubled_steps[rule]
            of_all = f"{troubled} of {counts.recorded} steps"
            yield f"{rule.title} in {of_all}, first at {alarm.message}."
    skipped = float(counts.skipped[counts.recorded // 2 :].mean())
    if rules.SKIPPED.holds(skipped):
        yield rules.SKIPPED.line(value=skipped)
    if len(norms) and rules.NO_GRADIENT.holds(counts.largest[0]):
        yield rules.NO_GRADIENT.line(when="in every step")
    if len(norms) >= rules.MIN_TREND_STEPS:
        first, last = _ends(norms)
        if first and rules.GROWING.holds(last / first):
            yield rules.GROWING.line(value=last / first, clip=rules.one_digit(first))
    if counts.clippable and rules.CLIPPED.holds(clipped := counts.clipped / counts.clippable):
        wide = float(np.quantile(norms, rules.CLIP_QUANTILE)) if len(norms) else 0
        limit = f"trainer.gradient_clip_val={rules.one_digit(wide):g}, or " if wide else ""
        yield rules.CLIPPED.line(value=clipped, kept=float(np.median(kept)), limit=limit)


def _ends(norms: np.ndarray) -> tuple[float, float]:
    tenth = len(norms) // rules.TREND_PARTS
    return float(np.median(norms[:tenth])), float(np.median(norms[-tenth:]))


def _about_layers(layers: dict[str, float]) -> Iterator[str]:
    if len(layers) < 2:
        return
    ratios = rules.layer_ratios(np.array([[*layers.values()]]))
    for rule, far in (
        (rules.VANISHING, rules.are_far(1 / ratios)),
        (rules.EXPLODING_BACKWARDS, rules.are_far(ratios)),
    ):
        found = zip(layers, ratios[0].tolist(), far[0].tolist(), strict=True)
        if who := [f"{layer} ({ratio:.2g}x)" for layer, ratio, is_far in found if is_far]:
            yield rule.line(who=listed(who), when="in the median step")
