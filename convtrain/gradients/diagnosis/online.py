"""What is wrong with the gradients, told as soon as the recorder has written them down.

A :class:`Detector` looks at one :class:`Block` after the other, on the host and never during a
step. It knows six kinds of trouble:

- ``nonfinite``: NaN or infinity that no scaler of mixed precision caught;
- ``loss``: a loss of NaN or infinity whose gradients are finite all the same;
- ``exploding``: a total norm far above that of the steps before it;
- ``vanishing``: a parameter's norm that is nothing beside the other parameters';
- ``dead``: a gradient of exactly zero, of a parameter or of some filters of a convolution;
- ``still``: a parameter that has a gradient and whose weights do not move.

What lasts is counted in recorded steps, which are fewer than those that the optimiser has done
where the recorder leaves some out.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from convtrain.gradients.diagnosis.baseline import NormBaseline

SEPARATE = 4  # alarms of one kind; where a block has more, one alarm tells of them all
LISTED = 8  # names or numbers in one message


@dataclass(frozen=True)
class Alarm:
    """One trouble, found at one step.

    Args:
        kind: ``nonfinite``, ``loss``, ``exploding``, ``vanishing``, ``dead`` or ``still``.
        step: the optimiser step, counted from 1.
        parameter: whose gradient it is; the first one where there are several, and None where it is
            the total of all.
        message: one line with the step, the thing, its value and what to try.
    """

    kind: str
    step: int
    parameter: str | None
    message: str


@dataclass(frozen=True, eq=False)
class Block:
    """What one flush of the recorder wrote: a row for each optimiser step, in order.

    Args:
        names: the parameters, P of them; later blocks may have more, or others.
        step: int64 (S,), counted from 1.
        norm: float64 (S,), L2 norm of all gradients together, before clipping.
        norms: float64 (S, P), L2 norm of each gradient; NaN where there is none.
        present: bool (S, P), whether there is a gradient at all.
        skipped: bool (S,), steps that the scaler of mixed precision left out.
        nonfinite: int (S,), parameters whose gradient holds NaN or infinity.
        first_nonfinite: name of the first of them, for each step; None where there is none.
        batches: for each step, the dataset's indices of its images; empty where unknown.
        fingerprints: float64 (P,), any number that changes when the weights do, taken at the flush;
            NaN where unknown.
        zero_filters: of some convolutions' weights, bool (filters,): whether the filter's gradient
            was exactly zero in every step of the block.
        loss, loss_known: float and bool (S,).
    """

    names: tuple[str, ...]
    step: np.ndarray
    norm: np.ndarray
    norms: np.ndarray
    present: np.ndarray
    skipped: np.ndarray
    nonfinite: np.ndarray
    first_nonfinite: tuple[str | None, ...]
    batches: tuple[tuple[int, ...], ...] = ()
    fingerprints: np.ndarray | None = None
    zero_filters: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss: np.ndarray | None = None
    loss_known: np.ndarray | None = None


class Lasting(NamedTuple):
    """What is true of a parameter at a step and in a number of recorded steps up to it."""

    step: int
    name: str
    steps: int


class Detector:
    """Looks for trouble, block after block, and tells of each once.

    The same trouble of the same parameter is told again after it was gone for ``patience`` steps,
    or, if it stays, after ``patience`` steps more, then twice as many, and so on.

    Args:
        window: how many normal steps say what the total norm usually is.
        warmup: how many of them it takes before their spread is trusted. Until then, and wherever
            the norm grows little by little, only 100 times the usual norm is an explosion.
        threshold: a total norm explodes when its logarithm lies this many robust standard
            deviations, 1.4826 times the median absolute deviation, above the median (Iglewicz and
            Hoaglin, "How to Detect and Handle Outliers", 1993), and when it is larger than the
            norms that training began with.
        vanishing: a parameter's norm vanishes below this part of the median parameter's.
        patience: recorded steps in a row before a parameter counts as vanishing, dead or still.
    """

    def __init__(
        self,
        *,
        window: int = 100,
        warmup: int = 50,
        threshold: float = 6.0,
        vanishing: float = 1e-7,
        patience: int = 100,
    ) -> None:
        self._usual = NormBaseline(window, max(1, min(warmup, window)), threshold)
        self._reports = _Reports(patience)
        self.vanishing, self.patience = vanishing, patience
        self._runs: dict[str, dict[str, int]] = {"vanishing": {}, "dead": {}, "still": {}}
        self._filter_runs: dict[str, list[int]] = {}
        self._fingerprints: dict[str, float] = {}

    def look(self, block: Block) -> list[Alarm]:
        """Return what is wrong in a block, in the order of steps; blocks come in order too."""
        if not len(block.step):
            return []
        usable = ~block.skipped & (block.nonfinite == 0)
        counted = usable[:, None] & block.present & np.isfinite(block.norms)
        found = [
            *self._nonfinite(block),
            *self._lost(block, usable),
            *self._exploding(block, usable),
            *self._vanishing(block, counted),
            *self._dead(block, counted),
            *self._dead_filters(block, counted),
            *self._still(block, counted),
        ]
        return sorted(found, key=lambda alarm: alarm.step)

    def state_dict(self) -> dict[str, Any]:
        """Return what the watch remembers, as dicts, lists, strings and numbers."""
        return {
            "usual": self._usual.state_dict(),
            "reports": [[*key, *value] for key, value in self._reports.told.items()],
            "runs": {kind: dict(runs) for kind, runs in self._runs.items()},
            "filter_runs": {name: list(runs) for name, runs in self._filter_runs.items()},
            "fingerprints": dict(self._fingerprints),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another watch's :meth:`state_dict` was taken."""
        self._usual.load_state_dict(state["usual"])
        self._reports.told = {
            (kind, name): (last, due, wait) for kind, name, last, due, wait in state["reports"]
        }
        self._runs = {kind: dict(runs) for kind, runs in state["runs"].items()}
        self._filter_runs = {name: list(runs) for name, runs in state["filter_runs"].items()}
        self._fingerprints = dict(state["fingerprints"])

    # --- of all gradients together ----------------------------------------------------------------

    def _nonfinite(self, block: Block) -> Iterator[Alarm]:
        for row in np.flatnonzero(~block.skipped & (block.nonfinite > 0)).tolist():
            step, count = int(block.step[row]), int(block.nonfinite[row])
            if not self._reports.due("nonfinite", "", step):
                continue
            first = block.first_nonfinite[row]
            who = first or "some parameter"
            more = f" and of {count - 1} more" if count > 1 else ""
            images = block.batches[row] if block.batches else ()
            where = f", at images {shortened(images)}" if images else ""
            yield Alarm(
                "nonfinite",
                step,
                first,
                f"step {step}: NaN or infinity in the gradient of {who}{more}{where}; "
                "try a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32",
            )

    def _lost(self, block: Block, usable: np.ndarray) -> Iterator[Alarm]:
        if block.loss is None or block.loss_known is None:
            return
        for row in np.flatnonzero(usable & block.loss_known & ~np.isfinite(block.loss)).tolist():
            step = int(block.step[row])
            if self._reports.due("loss", "", step):
                yield Alarm(
                    "loss",
                    step,
                    None,
                    f"step {step}: the loss is {block.loss[row]:g}, and the gradients are finite "
                    "all the same; try a lower optimizer.lr or trainer.precision=32",
                )

    def _exploding(self, block: Block, usable: np.ndarray) -> Iterator[Alarm]:
        for row in np.flatnonzero(usable).tolist():
            step, norm = int(block.step[row]), float(block.norm[row])
            usual = self._usual.exceeded_by(norm)
            if usual is None or not self._reports.due("exploding", "", step):
                continue
            norms = block.norms[row]
            largest = f", most in {block.names[np.nanargmax(norms)]}" if (norms > 0).any() else ""
            yield Alarm(
                "exploding",
                step,
                None,
                f"step {step}: gradient norm {norm:.3g}, {norm / usual:.3g} times the usual "
                f"{usual:.3g}{largest}; try a lower optimizer.lr or "
                f"trainer.gradient_clip_val={one_digit(3 * usual)}",
            )

    # --- of one parameter -------------------------------------------------------------------------

    def _vanishing(self, block: Block, counted: np.ndarray) -> list[Alarm]:
        counted = counted & (block.norms > 0)
        with np.errstate(invalid="ignore"):
            parts = block.norms / _median_of_rows(block.norms, counted)
        found = self._lasting("vanishing", block, parts < self.vanishing, counted)
        advice = "try BatchNorm2d or Residual in the network, or other init"
        if found and all(one.name.endswith("bias") for one in found):
            advice = "a bias right before a batch norm never has more: write bias: false there"
        what = f"gradient norm below {self.vanishing:g} of the median parameter's"
        return _told("vanishing", found, what, advice, block)

    def _dead(self, block: Block, counted: np.ndarray) -> list[Alarm]:
        found = self._lasting("dead", block, block.norms == 0, counted)
        advice = "try a lower optimizer.lr, LeakyReLU in place of ReLU, or BatchNorm2d before it"
        if len(found) >= block.present[-1].sum():
            advice = "the loss asks nothing more of the weights, or does not depend on them"
        return _told("dead", found, "gradient exactly zero", advice, block)

    def _dead_filters(self, block: Block, counted: np.ndarray) -> Iterator[Alarm]:
        first, step = int(block.step[0]), int(block.step[-1])
        steps = dict(zip(block.names, counted.sum(0).tolist(), strict=True))
        for name, zero in block.zero_filters.items():
            if not (new := steps.get(name, 0)):
                continue
            before = self._filter_runs.get(name) or [0] * len(zero)
            runs = [run + new if z else 0 for run, z in zip(before, zero.tolist(), strict=True)]
            self._filter_runs[name] = runs
            dead = [number for number, run in enumerate(runs) if run >= self.patience]
            # Without any living filter it is the parameter that is dead, which is told of above.
            if not dead or zero.all() or not self._reports.due("dead filters", name, step, first):
                continue
            yield Alarm(
                "dead",
                step,
                name,
                f"step {step}: {len(dead)} of {len(zero)} filters of {name}: {shortened(dead)}: "
                f"gradient exactly zero in {min(runs[number] for number in dead)} recorded steps; "
                "unless they are pruned, try a lower optimizer.lr or LeakyReLU in place of ReLU",
            )

    def _still(self, block: Block, counted: np.ndarray) -> list[Alarm]:
        if block.fingerprints is None:
            return []
        first, step = int(block.step[0]), int(block.step[-1])
        steps = (counted & (block.norms > 0)).sum(0).tolist()
        runs, found = self._runs["still"], []
        for name, mark, new in zip(block.names, block.fingerprints.tolist(), steps, strict=True):
            if not math.isfinite(mark):
                continue
            same = self._fingerprints.get(name) == mark
            self._fingerprints[name] = mark
            runs[name] = runs.get(name, 0) + new if same else 0
            lasting = new and runs[name] >= self.patience
            if lasting and self._reports.due("still", name, step, first):
                found.append(Lasting(step, name, runs[name]))
        what = "the weights have not moved, though they had a gradient,"
        advice = "is it in the optimiser, with a learning rate above 0? See optimizer.lr, scheduler"
        return _told("still", found, what, advice, block)

    def _lasting(
        self, kind: str, block: Block, holds: np.ndarray, counted: np.ndarray
    ) -> list[Lasting]:
        """Return what has lasted ``patience`` steps and is to be told.

        Steps that are not counted neither lengthen nor end what lasts.
        """
        known = self._runs[kind]
        if not holds.any():  # as in nearly every block
            known.update(dict.fromkeys(np.array(block.names)[counted.any(axis=0)].tolist(), 0))
            return []
        run = np.array([known.get(name, 0) for name in block.names], np.int64)
        runs = np.zeros(holds.shape, np.int64)
        for row in range(len(runs)):
            run = np.where(counted[row], np.where(holds[row], run + 1, 0), run)
            runs[row] = run
        known.update(zip(block.names, run.tolist(), strict=True))
        return [
            Lasting(int(block.step[row]), block.names[column], int(runs[row, column]))
            for row, column in np.argwhere(counted & (runs >= self.patience)).tolist()
            if self._reports.due(kind, block.names[column], int(block.step[row]))
        ]


class _Reports:
    """Which trouble was told of: by kind and name, its last step, the next report's, the wait."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.told: dict[tuple[str, str], tuple[int, int, int]] = {}

    def due(self, kind: str, name: str, step: int, first: int | None = None) -> bool:
        """Take note of trouble at a step, or from ``first`` to it; return whether to tell of it."""
        last, due, wait = self.told.get((kind, name), (-math.inf, 0, 0))
        if (step if first is None else first) - last > self.patience:
            due, wait = step, self.patience
        tell = step >= due
        self.told[kind, name] = (step, step + wait, 2 * wait) if tell else (step, due, wait)
        return tell


def shortened(things: Iterable[Any]) -> str:
    """Return a list for a message, its first eight and their number: ``0, 4, 7``."""
    listed = [str(thing) for thing in things]
    if len(listed) <= LISTED:
        return ", ".join(listed)
    return f"{', '.join(listed[:LISTED])}, ... ({len(listed)} in all)"


def one_digit(value: float) -> str:
    """Return a positive number with one significant digit: ``0.03``, ``200``."""
    return f"{float(f'{value:.0e}'):g}"


def _told(kind: str, found: Sequence[Lasting], what: str, advice: str, block: Block) -> list[Alarm]:
    """Make an alarm of each parameter, or one of all if they are many."""
    if len(found) <= SEPARATE:
        return [
            Alarm(
                kind,
                step,
                name,
                f"step {step}: {name}: {what} in {steps} recorded steps; {advice}",
            )
            for step, name, steps in found
        ]
    first, last = found[0].step, found[-1].step
    when = f"step {first}" if first == last else f"steps {first} to {last}"
    names = list(dict.fromkeys(one.name for one in found))
    who = f"{len(names)} of {len(block.names)} parameters, such as {names[0]} and {names[-1]}"
    least = min(one.steps for one in found)
    message = f"{when}: {who}: {what} in at least {least} recorded steps each; {advice}"
    return [Alarm(kind, first, names[0], message)]


def _median_of_rows(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return (S, 1): the median of what is counted in each row, NaN where nothing is.

    The upper one of two in the middle, so that of two parameters the weaker one can vanish.
    """
    if not values.shape[1]:
        return np.full((len(values), 1), np.nan)
    ordered = np.sort(np.where(counted, values, np.nan), axis=1)
    return np.take_along_axis(ordered, counted.sum(1, keepdims=True) // 2, axis=1)
