"""What a run's gradient record says, in a few plain lines, with what to try.

From Python: ``verdict(load(run, "steps"), load(run, "parameters"))``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from convtrain.errors import MissingDataError
from convtrain.gradients.alarms import Block, Watch, one_digit, shortened
from convtrain.gradients.reading import layer_of
from convtrain.gradients.store import load

FEWEST = 20  # steps before a trend means anything
GROWTH = 10.0  # of the norm, from the first tenth of the steps to the last
MOST = 0.5  # of the steps may be clipped, or have a gradient of exactly zero for a parameter
SKIPPED = 0.1  # of the later half of the steps may be skipped
UNEVEN = 100.0  # between the first layer's gradient norm and the last one's
OUTLYING = 1000.0  # between any layer's and the last one's; a batch norm's is a hundredth
UPDATES = (1e-5, 5e-2)  # change of a step by the size of the weights; about 1e-3 is usual
ROUNDING = 1e-4  # of float32: a coefficient of 0.9999999 clips nothing


def verdict(steps: pa.Table, parameters: pa.Table) -> list[str]:
    """Judge a run by its gradients.

    Args:
        steps: the record's table of steps, as ``load(run, "steps")`` returns it.
        parameters: its table of parameters. Of either table any column but ``step`` may be missing,
            and what it would have told is then left out.

    Returns:
        Lines in this order: how training went; what layers and updates were like, where that was
        recorded; each trouble, with what to try. A healthy run has no more than the first two.
    """
    step = _numbers(steps, "step")
    if not len(step):
        return ["No step was recorded."]
    norm, skipped = _numbers(steps, "norm"), _numbers(steps, "skipped") > 0
    bad = ~skipped & _is_nonfinite(steps)
    usable = ~skipped & ~bad
    usual = norm[usable & np.isfinite(norm)]
    kept = _kept(steps)[usable]
    layers, dead = _layers(parameters)
    update = _update_ratio(parameters, dead)
    troubles = [
        *_nonfinite(steps, step, bad),
        *_lost(steps, step, ~skipped & ~bad),
        *_skipping(skipped),
        *_explosions(step[usable], norm[usable]),
        *_trend(usual),
        *_clipping(kept, usual),
        *_dead(dead),
        *_uneven(layers),
        *_updates(update),
    ]
    details = [*_layers_told(layers), *_update_told(update), *_clipping_told(kept)]
    overview = _overview(step, skipped, bad, usual)
    if not troubles and (len(usual) or layers):
        overview = f"Healthy: {overview}"
    return [overview, *([f"{'; '.join(details)}."] if details else []), *troubles]


# --- steps ----------------------------------------------------------------------------------------


def judge(run_dir: Path) -> list[str]:
    """Judge all that a run has recorded; without a record there is nothing to say."""
    try:
        return verdict(load(run_dir, "steps"), load(run_dir))
    except MissingDataError:
        return []


def _overview(step: np.ndarray, skipped: np.ndarray, bad: np.ndarray, usual: np.ndarray) -> str:
    parts = [f"{_steps(len(step))} recorded ({step[0]:.0f} to {step[-1]:.0f})"]
    if skipped.any():
        parts.append(f"{skipped.sum()} of them skipped by the scaler of mixed precision")
    parts.append(f"{bad.sum() or 'none'} with NaN or infinity")
    if len(usual):
        parts.append(f"gradient norm {np.median(usual):.3g} in the median")
    if len(usual) >= FEWEST:
        first, last = _ends(usual)
        parts.append(f"from {first:.3g} at first to {last:.3g} at last")
    return f"{', '.join(parts)}."


def _is_nonfinite(steps: pa.Table) -> np.ndarray:
    if "nonfinite" in steps.column_names:
        return _numbers(steps, "nonfinite") > 0
    if "norm" in steps.column_names:
        finite: np.ndarray = np.isfinite(_numbers(steps, "norm"))
        return ~finite
    return np.zeros(steps.num_rows, bool)


def _nonfinite(steps: pa.Table, step: np.ndarray, bad: np.ndarray) -> Iterator[str]:
    if not bad.any():
        return
    first = int(np.argmax(bad))
    name = _strings(steps, "first_nonfinite")[first]
    where = f", in the gradient of {name}" if name else ""
    yield (
        f"NaN or infinity: in {bad.sum()} of {_steps(len(bad))}, first in step {step[first]:.0f}"
        f"{where}. Try a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32."
    )


def _lost(steps: pa.Table, step: np.ndarray, usable: np.ndarray) -> Iterator[str]:
    if "loss" not in steps.column_names:
        return
    known = ~np.asarray(steps["loss"].is_null())
    lost = usable & known & ~np.isfinite(_numbers(steps, "loss"))
    if lost.any():
        yield (
            f"Loss: NaN or infinite in {lost.sum()} of {_steps(len(lost))}, first in step "
            f"{step[np.argmax(lost)]:.0f}, though all gradients were finite there. Try a lower "
            "optimizer.lr or trainer.precision=32."
        )


def _skipping(skipped: np.ndarray) -> Iterator[str]:
    # A scaler starts too high by design, and skips steps until its scale fits.
    later = skipped[len(skipped) // 2 :]
    if later.mean() > SKIPPED:
        yield (
            f"Skipped: {later.sum()} of the last {_steps(len(later))}, as float16 overflowed. "
            "Try trainer.precision=bf16-mixed, or a lower optimizer.lr."
        )


def _explosions(step: np.ndarray, norm: np.ndarray) -> Iterator[str]:
    """Tell of explosions, which are what the alarms call so while training."""
    none = np.zeros((len(step), 0))
    no_step = np.zeros(len(step), np.int64)
    totals = Block(
        names=(),
        step=step.astype(np.int64),
        norm=norm,
        norms=none,
        present=none > 0,
        skipped=no_step > 0,
        nonfinite=no_step,
        first_nonfinite=(None,) * len(step),
    )
    if alarms := Watch().look(totals):
        again = f"; again at step {shortened(a.step for a in alarms[1:])}" if alarms[1:] else ""
        yield f"Exploding: {alarms[0].message}{again}."


def _trend(usual: np.ndarray) -> Iterator[str]:
    if len(usual) and not usual.any():
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


def _kept(steps: pa.Table) -> np.ndarray:
    """Return what clipping left of each step's norm, from 0 to 1; NaN where that is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = _numbers(steps, "clipped_norm") / _numbers(steps, "norm")
    return np.where(np.isfinite(kept), kept, _numbers(steps, "clip_coefficient"))


def _clipping_told(kept: np.ndarray) -> Iterator[str]:
    if (clipped := kept < 1 - ROUNDING).any():
        yield f"{clipped.mean():.1%} of the steps were clipped"


def _clipping(kept: np.ndarray, usual: np.ndarray) -> Iterator[str]:
    clipped = kept < 1 - ROUNDING
    if clipped.sum() <= MOST * len(kept):
        return
    wide = float(np.quantile(usual, 0.95)) if len(usual) else 0.0
    limit = f"trainer.gradient_clip_val={one_digit(wide)}, or " if wide else ""
    yield (
        f"Clipping: {clipped.mean():.0%} of the steps were cut, to {np.median(kept[clipped]):.2g} "
        "of their length in the median, so that the limit sets the pace rather than optimizer.lr. "
        f"Try {limit}a lower optimizer.lr."
    )


# --- parameters -----------------------------------------------------------------------------------


def _layers(parameters: pa.Table) -> tuple[dict[str, float], list[str]]:
    """Return each layer's median gradient norm, and the parameters whose gradient is mostly zero.

    A step in which nothing has a gradient, as after a loss of exactly zero, tells nothing of one.
    """
    norm, step = _numbers(parameters, "norm"), _numbers(parameters, "step")
    tells = np.isfinite(norm) & np.isin(step, step[norm > 0])
    squares: dict[str, float] = {}
    dead = []
    for name, rows in _rows_by_name(parameters):
        values = norm[rows[tells[rows]]]
        if (values == 0).sum() > MOST * len(values):
            dead.append(name)
        elif len(values):
            layer = layer_of(name)
            squares[layer] = squares.get(layer, 0.0) + float(np.median(values)) ** 2
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


def _update_ratio(parameters: pa.Table, dead: list[str]) -> float:
    """Return the median over the living weights' medians; NaN where it was not recorded.

    Biases start at zero, and what is a large change to them is none to the network.
    """
    ratio = _numbers(parameters, "update_ratio")
    known = np.isfinite(ratio)
    medians = [
        float(np.median(ratio[rows[known[rows]]]))
        for name, rows in _rows_by_name(parameters)
        if known[rows].any() and name not in dead and not name.endswith("bias")
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


# --- tables ---------------------------------------------------------------------------------------


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a column as float64 (rows,), NaN where there is nothing."""
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[column].cast(pa.float64()).to_numpy(), np.float64)


def _strings(table: pa.Table, column: str) -> list[str | None]:
    if column not in table.column_names:
        return [None] * table.num_rows
    return [*table[column].to_pylist()]


def _rows_by_name(parameters: pa.Table) -> Iterable[tuple[str, np.ndarray]]:
    """Return each parameter with the numbers of its rows, in the order of the network.

    That is the order within the step that has most parameters: others can be thawed later.
    """
    if "parameter" not in parameters.column_names or not parameters.num_rows:
        return []
    column = parameters["parameter"].combine_chunks().dictionary_encode()
    codes, names = column.indices.to_numpy(), column.dictionary.to_pylist()
    _, first, count = np.unique(_numbers(parameters, "step"), return_index=True, return_counts=True)
    fullest = np.argmax(count)
    whole = codes[first[fullest] : first[fullest] + count[fullest]]
    order = dict.fromkeys([*whole.tolist(), *range(len(names))])
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    by_code = np.split(np.argsort(codes, kind="stable"), ends[:-1])
    return [(names[code], by_code[code]) for code in order]


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
