"""Read a record: find the run, select rows, and arrange the norms as one array."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convtrain.errors import ConfigError, MissingDataError, did_you_mean
from convtrain.gradients.layers import layer_norms
from convtrain.gradients.record.store import FOLDER, load
from convtrain.run.directory import Run
from convtrain.text import matches

NO_LOGARITHM = ("no gradient", "exactly zero", "NaN or infinity")
"""Why a norm has no logarithm to draw."""
ABSENT, ZERO, NONFINITE = range(len(NO_LOGARITHM))
MAX_SAMPLED_STEPS = 4096
"""A median over more steps uses an evenly spread sample of at most this many."""


@dataclass(frozen=True)
class Norms:
    """Gradient norms of a run, by step (S) and by parameter or layer (P).

    Attributes:
        names: (P), in the order of the network.
        steps: int64 (S,).
        values: float (S, P), NaN without a gradient; ``present`` tells that from a NaN gradient.
        skipped: bool (S,), the steps that the loss scaler skipped; all False if it skipped all.
        counted: bool (S,), the steps that enter a median: those that were not skipped and have a
            nonzero gradient; all True if there is no such step.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    values: np.ndarray
    present: np.ndarray
    skipped: np.ndarray
    counted: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        return self.present & np.isfinite(self.values)

    @property
    def nonfinite(self) -> np.ndarray:
        return self.present & ~np.isfinite(self.values)

    def matching(self, globs: Sequence[str]) -> "Norms":
        """Return the columns that match any of the globs; all without a glob."""
        names = _matching(self.names, globs, "parameter")
        columns = [self.names.index(name) for name in names]
        values, present = self.values[:, columns], self.present[:, columns]
        return replace(self, names=tuple(names), values=values, present=present)

    def by_layer(self) -> "Norms":
        names, values, present = layer_norms(self.names, self.values, self.present)
        return replace(self, names=names, values=values, present=present)

    def medians(self) -> dict[str, float]:
        """Return the median of each name's finite norms in the counted steps, or NaN."""
        steps = len(self.steps)
        rows = (np.arange(steps) % _sampled_every(steps) == 0) & self.counted
        return dict(zip(self.names, self._over(rows, np.median).tolist(), strict=True))

    def over_steps(self, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        """Return a statistic of each name's finite norms in unskipped steps: float64 (P,)."""
        return self._over(~self.skipped, statistic)

    def _over(self, rows: np.ndarray, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        columns = zip(
            self.values.T.astype(np.float64), (self.finite & rows[:, None]).T, strict=True
        )
        return np.array([statistic(v[kept]) if kept.any() else np.nan for v, kept in columns])


def require_run(path: Path | str) -> Path:
    """Return the path of a run's directory, or raise MissingDataError."""
    run = Path(path)
    if not run.exists():
        siblings = [other.name for other in run.parent.glob("*")]
        raise MissingDataError(f"{path}: no such directory{did_you_mean(run.name, siblings)}")
    if _is_run(run):
        return run
    if run.resolve().name == FOLDER and _is_run(run.resolve().parent):
        raise MissingDataError(f"{path}: give the run's directory, {run.resolve().parent}")
    inside = [str(folder) for folder in run.glob("*") if _is_run(folder)]
    example = max(inside, default="logs/runs/convnet/2026-01-31_12-00-00-a1b2")
    raise MissingDataError(
        f"{path}: not a run, whose directory holds config.yaml and {FOLDER}/, such as {example}"
    )


def select_rows(table: pa.Table, globs: Sequence[str]) -> pa.Table:
    """Return the rows whose parameter, or layer, matches any of the globs; all without a glob.

    A glob that matches nothing, or a table without names, raises ConfigError.
    """
    if not globs:
        return table
    key = next((key for key in ("parameter", "layer") if key in table.column_names), None)
    if key is None:
        raise ConfigError(f"--parameters {globs[0]}: a table of steps has no parameters to choose")
    column = table[key].cast(pa.string())
    chosen = _matching(pc.unique(column).to_pylist(), globs, key)
    return table.filter(pc.is_in(column, pa.array(chosen, pa.string())))


def load_steps(run: Path | str) -> pa.Table:
    """Return a record's table of steps, an empty one where it is missing or unreadable."""
    try:
        return load(run, "steps")
    except MissingDataError:
        return pa.table({"step": pa.array([], pa.int64())})


def skipped_steps(steps: pa.Table) -> np.ndarray:
    """Return the steps that the loss scaler skipped."""
    if "skipped" not in steps.column_names:
        return np.empty(0, np.int64)
    return np.asarray(steps.filter(pc.fill_null(steps["skipped"], False))["step"].to_numpy())


def gather_norms(
    parameters: pa.Table, skipped: np.ndarray | Sequence[int] = (), column: str = "norm"
) -> Norms:
    """Arrange a column of a record's table of parameters by step and parameter.

    A table without this column, or without rows, raises MissingDataError.
    """
    if column not in parameters.column_names or not parameters.num_rows:
        raise MissingDataError("the record has no gradient norms")
    steps, rows = np.unique(parameters["step"].to_numpy(), return_inverse=True)
    # Each part of a record has its own dictionary.
    encoded = parameters["parameter"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    known = ~np.asarray(parameters[column].is_null())
    values = np.full((len(steps), len(names)), np.nan, np.float32)
    present = np.zeros(values.shape, bool)
    values[rows[known], codes[known]] = parameters[column].to_numpy()[known]
    present[rows[known], codes[known]] = True
    # A parameter that is unfrozen later comes last; the fullest step has the network's order.
    fullest = int(np.argmax(present.sum(1)))
    order = list(dict.fromkeys([*codes[rows == fullest].tolist(), *range(len(names))]))
    was_skipped = np.isin(steps, skipped)
    was_skipped &= not was_skipped.all()
    counted = ~was_skipped & (values > 0).any(1)
    return Norms(
        tuple(names[code] for code in order), steps, values[:, order], present[:, order],
        was_skipped, counted if counted.any() else ~counted,
    )  # fmt: skip


def read_norms(run: Path | str) -> Norms:
    """Return the norms of a run's record, or raise MissingDataError."""
    return gather_norms(load(run), skipped_steps(load_steps(run)))


def sampled(pieces: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of the steps that :meth:`Norms.medians` samples, spread evenly."""
    seen, sample = 0, pa.table({})
    for piece in pieces:
        if piece.num_rows:
            positions = seen + np.unique(piece["step"].to_numpy(), return_inverse=True)[1]
            seen = int(positions[-1]) + 1
            piece = piece.append_column("position", pa.array(positions))
            parts = [sample, piece] if sample.num_rows else [piece]
            both = pa.concat_tables(parts, promote_options="permissive")
            kept = both["position"].to_numpy() % _sampled_every(seen) == 0
            sample = both.filter(pa.array(kept)).combine_chunks()
    return sample


def _sampled_every(steps: int) -> int:
    """Return a power of two, so that a growing record can be sampled piece by piece."""
    return 1 << max(0, (steps - 1) // MAX_SAMPLED_STEPS).bit_length()


def _is_run(path: Path) -> bool:
    return (path / FOLDER).is_dir() or Run(path).is_begun


def _matching(names: Sequence[str], globs: Sequence[str], key: str) -> list[str]:
    for glob in globs:
        if not any(matches(name, [glob]) for name in names):
            parts = [name.split(".") for name in names]
            # Globs to suggest: stem.*, *.weight.
            meant = [".".join([*p[:i], "*"]) for p in parts for i in range(1, len(p))]
            meant += [".".join(["*", *p[i:]]) for p in parts for i in range(1, len(p))]
            raise ConfigError(
                f"--parameters {glob}: matches none of the record's {len(names)} {key}s, such as "
                f"{', '.join(names[:3])}{did_you_mean(glob, dict.fromkeys([*names, *meant]))}"
            )
    return [name for name in names if not globs or matches(name, globs)]
