"""The diagnosis of a run's whole gradient record, in a few lines, with what to try.

From Python: ``diagnose(run)``, or ``diagnose_tables(load(run, "steps"), load(run))``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from convtrain.errors import MissingDataError
from convtrain.gradients.diagnosis.aggregate import ParameterAggregate, StepAggregate
from convtrain.gradients.diagnosis.rules import (
    CLIP_QUANTILE,
    CLIPPED,
    DEAD,
    EXPLODING,
    EXPLODING_BACKWARDS,
    GROWING,
    HASTY,
    LOSS,
    MIN_TREND_STEPS,
    NO_GRADIENT,
    NONFINITE,
    SKIPPED,
    SLOW,
    TREND_PARTS,
    TYPICAL_UPDATE_RATIO,
    VANISHING,
    is_exploding_backwards,
    is_vanishing,
    layer_ratios,
    listed,
    one_digit,
)
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
    norms = {layer: norm for layer, norm in parameters.layer_medians.items() if norm > 0}
    update = parameters.update_ratio
    details = [*_layer_profile(norms)]
    if np.isfinite(update):
        details.append(
            f"A step changes the weights by {update:.1e} of their norm "
            f"({TYPICAL_UPDATE_RATIO:.0e} is typical)."
        )
    if steps.clipped:
        details.append(f"{steps.clipped / steps.clippable:.1%} of the steps were clipped.")
    troubles = [
        *_about_steps(steps),
        *_about_parameters(parameters.medians),
        *_about_layers(norms),
        *(rule.line(value=update) for rule in (SLOW, HASTY) if rule.holds(update)),
    ]
    overview = _overview(steps)
    if not troubles and (len(steps.norms.values) or norms):
        overview = f"Healthy: {overview}"
    return [overview, *([" ".join(details)] if details else []), *troubles]


def _overview(steps: StepAggregate) -> str:
    norms, count = steps.norms.values, steps.count
    parts = [f"{count} step{'s' if count > 1 else ''} recorded ({steps.first} to {steps.last})"]
    if steps.skipped_steps:
        parts.append(f"{len(steps.skipped_steps)} of them skipped by the loss scaler")
    parts.append(f"{steps.detector.troubled_steps[NONFINITE.name] or 'none'} with NaN or infinity")
    if len(norms):
        largest, step = steps.largest
        parts.append(f"median gradient norm {np.median(norms):.3g}")
        parts.append(f"largest {largest:.3g} at step {step}")
    if len(norms) >= MIN_TREND_STEPS:
        first, last = _ends(norms)
        parts.append(f"{first:.3g} in the first tenth and {last:.3g} in the last")
    return f"{', '.join(parts)}."


def _layer_profile(norms: dict[str, float]) -> Iterator[str]:
    if len(norms) > 1:
        first, *_, last = norms
        ratio = norms[first] / norms[last]
        rule, verb, side = VANISHING, "falls", "below"
        if ratio >= 1:
            rule, verb, side = EXPLODING_BACKWARDS, "grows", "above"
        limit, trouble = f"{side} {rule.threshold:g}x", rule.title.lower()
        state = f"healthy ({limit} would be {trouble})"
        if rule.holds(ratio):
            state = f"{trouble} ({limit})"
        route = f"from {last} (last) to {first} (first)"
        yield f"Gradient norm {verb} to {ratio:.2g}x {route}: {state}."


def _about_steps(steps: StepAggregate) -> Iterator[str]:
    for rule in (NONFINITE, LOSS, EXPLODING):
        if (alarm := steps.alarms.get(rule.name)) is not None:
            count = steps.detector.troubled_steps[rule.name]
            yield f"{rule.title} in {count} of {steps.count} steps, first at {alarm.message}."
    if SKIPPED.holds(skipped := steps.skipped_of_later_half()):
        yield SKIPPED.line(value=skipped)
    norms = steps.norms.values
    if len(norms) and NO_GRADIENT.holds(steps.largest[0]):
        yield NO_GRADIENT.line()
    if len(norms) >= MIN_TREND_STEPS:
        first, last = _ends(norms)
        if first and GROWING.holds(last / first):
            yield GROWING.line(value=last / first, clip=one_digit(first))
    if steps.clippable and CLIPPED.holds(clipped := steps.clipped / steps.clippable):
        wide = float(np.quantile(norms, CLIP_QUANTILE)) if len(norms) else 0
        limit = f"trainer.gradient_clip_val={one_digit(wide):g}, or " if wide else ""
        yield CLIPPED.line(value=clipped, kept=steps.kept.median(), limit=limit)


def _ends(norms: np.ndarray) -> tuple[float, float]:
    """Return the medians of the first and of the last tenth."""
    tenth = len(norms) // TREND_PARTS
    return float(np.median(norms[:tenth])), float(np.median(norms[-tenth:]))


def _about_parameters(medians: dict[str, float]) -> Iterator[str]:
    if dead := [name for name, median in medians.items() if DEAD.holds(median)]:
        yield DEAD.line(who=listed(dead), when="in the median")


def _about_layers(norms: dict[str, float]) -> Iterator[str]:
    if len(norms) < 2:
        return
    row = np.array([[*norms.values()]])
    for rule, found in (
        (VANISHING, is_vanishing(row)),
        (EXPLODING_BACKWARDS, is_exploding_backwards(row)),
    ):
        far = zip(norms, layer_ratios(row)[0].tolist(), found[0].tolist(), strict=True)
        if who := [f"{layer} ({ratio:.2g}x)" for layer, ratio, is_far in far if is_far]:
            yield rule.line(who=listed(who), when="in the median")
