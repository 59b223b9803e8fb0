"""The diagnosis of a run's whole gradient record, in a few lines, with what to try.

From Python: ``diagnose(run)``, or ``diagnose_tables(load(run, "steps"), load(run))``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from convtrain.errors import MissingDataError
from convtrain.gradients.diagnosis import rules
from convtrain.gradients.diagnosis.aggregate import ParameterAggregate, StepAggregate
from convtrain.gradients.diagnosis.rules import listed
from convtrain.gradients.record.store import load_in_pieces


def diagnose_tables(steps: pa.Table, parameters: pa.Table) -> list[str]:
    """Diagnose a run by its gradients.

    Args:
        steps: the record's table of steps, as ``load(run, "steps")`` returns it.
        parameters: its table of parameters. Of either table any column but ``step`` may be missing,
            and what it would have shown is then left out.

    Returns:
        Lines in this order: how training went; what layers and updates were like, where that was
        recorded; each rule that holds, with what to try. A healthy run has the first two only.
    """
    of_steps, of_parameters = StepAggregate(), ParameterAggregate()
    of_steps.add(steps)
    of_parameters.add(parameters, of_steps.skipped_steps)
    return _lines(of_steps, of_parameters)


def diagnose(run_dir: Path) -> list[str]:
    """Diagnose all that a run has recorded; without a record there is no line.

    It takes no more memory for a long run than for a short one: medians are those of an evenly
    spread sample of a long run's steps, and all counts are exact.
    """
    steps, parameters = StepAggregate(), ParameterAggregate()
    try:
        for table in load_in_pieces(run_dir, "steps"):
            steps.add(table)
        for table in load_in_pieces(run_dir, "parameters"):
            parameters.add(table, steps.skipped_steps)
    except MissingDataError:
        return []
    return _lines(steps, parameters)


def _lines(steps: StepAggregate, parameters: ParameterAggregate) -> list[str]:
    if not steps.count:
        return ["No step was recorded."]
    medians, update = parameters.medians, parameters.update_ratio
    layers = {layer: norm for layer, norm in parameters.layer_medians.items() if norm > 0}
    troubles = [*_about_steps(steps)]
    if dead := [name for name, median in medians.items() if rules.DEAD.holds(median)]:
        troubles.append(rules.DEAD.line(who=listed(dead), when="in the median"))
    troubles += _about_layers(layers)
    for rule in (rules.SLOW, rules.HASTY):
        if rule.holds(update):
            troubles.append(rule.line(value=update))
    overview, details = _overview(steps), " ".join(_details(steps, layers, update))
    if not troubles and (len(steps.norms.values) or layers):
        overview = f"Healthy: {overview}"
    return [overview, *([details] if details else []), *troubles]


def _overview(steps: StepAggregate) -> str:
    norms, count = steps.norms.values, steps.count
    parts = [f"{count} step{'s' if count > 1 else ''} recorded ({steps.first} to {steps.last})"]
    if len(steps.skipped_steps):
        parts.append(f"{len(steps.skipped_steps)} of them skipped by the loss scaler")
    parts.append(f"{steps.detector.troubled_steps[rules.NONFINITE] or 'none'} with NaN or infinity")
    if len(norms):
        trend = ""
        if len(norms) >= rules.MIN_TREND_STEPS:
            trend = " ({:.3g} in the first tenth, {:.3g} in the last)".format(*_ends(norms))
        parts.append(f"median gradient norm {np.median(norms):.3g}{trend}")
        parts.append("largest {:.3g} at step {}".format(*steps.largest))
    return f"{', '.join(parts)}."


def _details(steps: StepAggregate, layers: dict[str, float], update: float) -> Iterator[str]:
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
    if steps.clipped:
        yield f"{steps.clipped / steps.clippable:.1%} of the steps were clipped."


def _about_steps(steps: StepAggregate) -> Iterator[str]:
    for rule in (rules.NONFINITE, rules.LOSS, rules.EXPLODING):
        if (alarm := steps.alarms.get(rule.name)) is not None:
            count = steps.detector.troubled_steps[rule]
            yield f"{rule.title} in {count} of {steps.count} steps, first at {alarm.message}."
    if rules.SKIPPED.holds(skipped := steps.skipped_of_later_half()):
        yield rules.SKIPPED.line(value=skipped)
    norms = steps.norms.values
    if len(norms) and rules.NO_GRADIENT.holds(steps.largest[0]):
        yield rules.NO_GRADIENT.line(when="in every step")
    if len(norms) >= rules.MIN_TREND_STEPS:
        first, last = _ends(norms)
        if first and rules.GROWING.holds(last / first):
            yield rules.GROWING.line(value=last / first, clip=rules.one_digit(first))
    if steps.clippable and rules.CLIPPED.holds(clipped := steps.clipped / steps.clippable):
        wide = float(np.quantile(norms, rules.CLIP_QUANTILE)) if len(norms) else 0
        limit = f"trainer.gradient_clip_val={rules.one_digit(wide):g}, or " if wide else ""
        yield rules.CLIPPED.line(value=clipped, kept=steps.kept.median(), limit=limit)


def _ends(norms: np.ndarray) -> tuple[float, float]:
    """Return the medians of the first and of the last tenth."""
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
            yield rule.line(who=listed(who), when="in the median")
