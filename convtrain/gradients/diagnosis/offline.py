"""What a run's gradient record says, in a few plain lines, with what to try.

From Python: ``diagnose_tables(load(run, "steps"), load(run, "parameters"))``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from convtrain.errors import MissingDataError
from convtrain.gradients.diagnosis.aggregate import ParameterAggregate, StepAggregate
from convtrain.gradients.diagnosis.online import one_digit, shortened
from convtrain.gradients.layers import layer_of
from convtrain.gradients.record.store import load_in_pieces

FEWEST = 20  # steps before a trend means anything
GROWTH = 10.0  # of the norm, from the first tenth of the steps to the last
MOST = 0.5  # of the steps may be clipped, or have a gradient of exactly zero for a parameter
SKIPPED = 0.1  # of the later half of the steps may be skipped
UNEVEN = 100.0  # between the first layer's gradient norm and the last one's
OUTLYING = 1000.0  # between any layer's and the last one's; a batch norm's is a hundredth
UPDATES = (1e-5, 5e-2)  # change of a step by the size of the weights; about 1e-3 is usual


def diagnose_tables(steps: pa.Table, parameters: pa.Table) -> list[str]:
    """Judge a run by its gradients.

    Args:
        steps: the record's table of steps, as ``load(run, "steps")`` returns it.
        parameters: its table of parameters. Of either table any column but ``step`` may be missing,
            and what it would have told is then left out.

    Returns:
        Lines in this order: how training went; what layers and updates were like, where that was
        recorded; each trouble, with what to try. A healthy run has no more than the first two.
    """
    of_steps, of_parameters = StepAggregate(), ParameterAggregate()
    of_steps.add(steps)
    of_parameters.add(parameters)
    return _diagnosis(of_steps, of_parameters)


def diagnose(run_dir: Path) -> list[str]:
    """Judge all that a run has recorded; without a record there is nothing to say.

    It takes no more memory for a long run than for a short one: medians are those of an evenly
    spread sample of a long run's steps, and all counts are exact.
    """
    of_steps, of_parameters = StepAggregate(), ParameterAggregate()
    try:
        for table in load_in_pieces(run_dir, "steps"):
            of_steps.add(table)
        for table in load_in_pieces(run_dir, "parameters"):
            of_parameters.add(table)
    except MissingDataError:
        return []
    return _diagnosis(of_steps, of_parameters)


def _diagnosis(steps: StepAggregate, parameters: ParameterAggregate) -> list[str]:
    if not steps.count:
        return ["No step was recorded."]
    layers, dead = _layers(parameters)
    update = _update_ratio(parameters, dead)
    troubles = [
        *_nonfinite(steps),
        *_lost(steps),
        *_skipping(steps),
        *_explosions(steps),
        *_trend(steps),
        *_clipping(steps),
        *_dead(dead),
        *_uneven(layers),
        *_updates(update),
    ]
    details = [*_layers_told(layers), *_update_told(update), *_clipping_told(steps)]
    overview = _overview(steps)
    if not troubles and (len(steps.usual.values) or layers):
        overview = f"Healthy: {overview}"
    return [overview, *([f"{'; '.join(details)}."] if details else []), *troubles]


# --- steps ----------------------------------------------------------------------------------------


def _overview(steps: StepAggregate) -> str:
    usual = steps.usual.values
    parts = [f"{_steps(steps.count)} recorded ({steps.first} to {steps.last})"]
    if steps.skipped:
        parts.append(f"{steps.skipped} of them skipped by the scaler of mixed precision")
    parts.append(f"{steps.bad or 'none'} with NaN or infinity")
    if len(usual):
        parts.append(f"gradient norm {np.median(usual):.3g} in the median")
    if len(usual) >= FEWEST:
        first, last = _ends(usual)
        parts.append(f"from {first:.3g} at first to {last:.3g} at last")
    return f"{', '.join(parts)}."


def _nonfinite(steps: StepAggregate) -> Iterator[str]:
    if not steps.bad:
        return
    first, name = steps.first_bad
    where = f", in the gradient of {name}" if name else ""
    yield (
        f"NaN or infinity: in {steps.bad} of {_steps(steps.count)}, first in step {first}"
        f"{where}. Try a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32."
    )


def _lost(steps: StepAggregate) -> Iterator[str]:
    if steps.lost:
        yield (
            f"Loss: NaN or infinite in {steps.lost} of {_steps(steps.count)}, first in step "
            f"{steps.first_lost}, though all gradients were finite there. Try a lower "
            "optimizer.lr or trainer.precision=32."
        )


def _skipping(steps: StepAggregate) -> Iterator[str]:
    # A scaler starts too high by design, and skips steps until its scale fits.
    skipped, later = steps.skipped_of_later_half()
    if skipped > SKIPPED * later:
        yield (
            f"Skipped: {skipped} of the last {_steps(later)}, as float16 overflowed. "
            "Try trainer.precision=bf16-mixed, or a lower optimizer.lr."
        )


def _explosions(steps: StepAggregate) -> Iterator[str]:
    if steps.explosion:
        more = steps.more_explosions
        yield f"Exploding: {steps.explosion}{f'; again at step {shortened(more)}' if more else ''}."


def _trend(steps: StepAggregate) -> Iterator[str]:
    usual = steps.usual.values
    if len(usual) and steps.all_zero:
        yield (
            "No gradient: exactly zero in every step. Try other init, or a lower optimizer.lr; "
            "and does the loss depend on the weights?"
        )
    if len(usual) < FEWEST:
        return
    first, last = _ends(usual)
    if last > GROWTH * first > 0:
        yield (
            f"Growing: the gradient norm is {last / first:.3g} times what it was at first. Try a "
            f"lower optimizer.lr, scheduler=cosine or trainer.gradient_clip_val={one_digit(first)}."
        )


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the medians of the first and of the last tenth."""
    tenth = len(values) // 10
    return float(np.median(values[:tenth])), float(np.median(values[-tenth:]))


def _clipping_told(steps: StepAggregate) -> Iterator[str]:
    if steps.clipped:
        yield f"{steps.clipped / steps.unbroken:.1%} of the steps were clipped"


def _clipping(steps: StepAggregate) -> Iterator[str]:
    if steps.clipped <= MOST * steps.unbroken:
        return
    usual = steps.usual.values
    wide = float(np.quantile(usual, 0.95)) if len(usual) else 0.0
    limit = f"trainer.gradient_clip_val={one_digit(wide)}, or " if wide else ""
    yield (
        f"Clipping: {steps.clipped / steps.unbroken:.0%} of the steps were cut, to "
        f"{np.median(steps.kept.values):.2g} of their length in the median, so that the limit sets "
        f"the pace rather than optimizer.lr. Try {limit}a lower optimizer.lr."
    )


# --- parameters -----------------------------------------------------------------------------------


def _layers(parameters: ParameterAggregate) -> tuple[dict[str, float], list[str]]:
    """Return each layer's median gradient norm, and the parameters that are mostly zero."""
    squares: dict[str, float] = {}
    dead = []
    for name in parameters.names:
        told = parameters.told[name]
        if parameters.zeros[name] > MOST * told:
            dead.append(name)
        elif told:
            median = float(np.median(parameters.norms[name].values))
            squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + median**2
    return {layer: square**0.5 for layer, square in squares.items()}, dead


def _layers_told(layers: dict[str, float]) -> Iterator[str]:
    if len(layers) > 1:
        first, *_, last = layers
        yield f"{first}'s gradient norm is {layers[first] / layers[last]:.2g} of {last}'s"


def _dead(names: list[str]) -> Iterator[str]:
    if names:
        yield (
            f"Dead: the gradient of {shortened(names)} is exactly zero in most steps. Try a lower "
            "optimizer.lr, LeakyReLU in place of ReLU, or BatchNorm2d before it."
        )


def _uneven(layers: dict[str, float]) -> Iterator[str]:
    if len(layers) < 2:
        return
    first, *_, last = layers
    parts = {layer: norm / layers[last] for layer, norm in layers.items()}
    rate = parts[first] ** (1 / (len(layers) - 1))
    weakest = UNEVEN if parts[first] * UNEVEN < 1 else OUTLYING
    if weak := {layer: part for layer, part in parts.items() if part * weakest < 1}:
        yield (
            f"Vanishing: of {last}'s gradient norm, {_parts(weak)} ({rate:.2g} from layer to layer "
            "on the way to the first). Try BatchNorm2d or Residual in the network, ReLU for "
            "Sigmoid or Tanh, or init with kaiming_normal."
        )
    strongest = UNEVEN if parts[first] > UNEVEN else OUTLYING
    if strong := {layer: part for layer, part in parts.items() if part > strongest}:
        yield (
            f"Exploding backwards: of {last}'s gradient norm, {_parts(strong)} ({rate:.2g} from "
            "layer to layer on the way to the first). Try BatchNorm2d in the network, init with "
            "kaiming_normal or orthogonal, or trainer.gradient_clip_val=1."
        )


def _parts(parts: dict[str, float]) -> str:
    return f"{shortened(f'{layer} has {part:.2g}' for layer, part in parts.items())}"


def _update_ratio(parameters: ParameterAggregate, dead: list[str]) -> float:
    """Return the median over the living weights' medians; NaN where it was not recorded.

    Biases start at zero, and what is a large change to them is none to the network.
    """
    medians = [
        float(np.median(ratios))
        for name in parameters.names
        if len(ratios := parameters.ratios[name].values)
        and name not in dead
        and not name.endswith("bias")
    ]
    return float(np.median(medians)) if medians else np.nan


def _update_told(ratio: float) -> Iterator[str]:
    if np.isfinite(ratio):
        yield f"a step changes the weights by {ratio:.1e} of their size, 1e-03 being usual"


def _updates(ratio: float) -> Iterator[str]:
    least, most = UPDATES
    if ratio < least:
        yield f"Slow: a step changes the weights by {ratio:.1e} only. Try a higher optimizer.lr."
    if ratio > most:
        yield f"Hasty: a step changes the weights by {ratio:.1e}. Try a lower optimizer.lr."


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
