"""Reading a record: which run, which rows of it, and the norms as one array."""

from collections.abc import Callable, Sequence
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

MAX_SAMPLED_STEPS = 4096
"""A median of more steps than these is that of an evenly spread sample of them."""


class Sample:
    """Values of a series, evenly spread over it; all of them up to ``MAX_SAMPLED_STEPS``."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self._count, self.every, self.values = 0, 1, np.empty(0)
        if values is not None:
            self.add(values)

    def add(self, values: np.ndarray) -> None:
        self.values = np.append(self.values, values[-self._count % self.every :: self.every])
        self._count += len(values)
        while len(self.values) > MAX_SAMPLED_STEPS:
            self.values, self.every = self.values[::2], 2 * self.every

    def median(self) -> float:
        """Return the median, NaN where there is no value."""
        return float(np.median(self.values)) if len(self.values) else np.nan


@dataclass(frozen=True)
class Norms:
    """Gradient norms of a run.

    Attributes:
        names: of P parameters or layers, in the order of the network.
        steps: int64 (S,), the recorded steps.
        values: float (S, P), NaN where there was no gradient; ``present`` tells it from a
            gradient that is NaN.
        present: bool (S, P).
        counted: bool (S,), the steps that count in a median: those that the loss scaler did not
            skip and in which any parameter had a gradient other than zero.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    values: np.ndarray
    present: np.ndarray
    counted: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        return self.present & np.isfinite(self.values)

    @property
    def nonfinite(self) -> np.ndarray:
        return self.present & ~np.isfinite(self.values)

    def without(self, steps: np.ndarray) -> "Norms":
        """Leave out some steps, unless no other is left."""
        kept = ~np.isin(self.steps, steps)
        if not kept.any():
            return self
        rows = self.steps[kept], self.values[kept], self.present[kept], self.counted[kept]
        return Norms(self.names, *rows)

    def matching(self, globs: Sequence[str]) -> "Norms":
        """Return the columns whose name matches any of the globs; all without a glob.

        Raises:
            ConfigError: a glob matches nothing.
        """
        names = _matching(self.names, globs, "parameter")
        columns = [self.names.index(name) for name in names]
        return self._with(tuple(names), self.values[:, columns], self.present[:, columns])

    def by_layer(self) -> "Norms":
        """Return the norms of layers; see :func:`convtrain.gradients.layers.layer_norms`."""
        return self._with(*layer_norms(self.names, self.values, self.present))

    def _with(self, names: tuple[str, ...], values: np.ndarray, present: np.ndarray) -> "Norms":
        return Norms(names, self.steps, values, present, self.counted)

    def counted_values(self) -> list[np.ndarray]:
        """Return, for each name, the finite norms of the steps that count: float64."""
        kept = self.finite & self.counted[:, None]
        return [v[k].astype(np.float64) for v, k in zip(self.values.T, kept.T, strict=True)]

    def medians(self) -> np.ndarray:
        """Return the median of each column: float64 (P,). All steps count where none does."""
        norms = self if self.counted.any() else replace(self, counted=~self.counted)
        return np.array([Sample(values).median() for values in norms.counted_values()])

    def over_steps(self, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        """Return a statistic of each column's finite norms, NaN where it has none: float64 (P,)."""
        columns = replace(self, counted=np.ones_like(self.counted)).counted_values()
        return np.array([statistic(values) if len(values) else np.nan for values in columns])


def require_run(path: Path | str) -> Path:
    """Return a run's directory as a path.

    Raises:
        MissingDataError: it does not exist, or is something else.
    """
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

    Raises:
        ConfigError: a glob matches nothing, or the table has no names.
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
    """Return a record's table of steps, an empty one where it is missing or cannot be read."""
    try:
        return load(run, "steps")
    except MissingDataError:
        return pa.table({"step": pa.array([], pa.int64())})


def skipped_steps(steps: pa.Table) -> np.ndarray:
    """Return the numbers of the steps that the loss scaler of mixed precision skipped."""
    if "skipped" not in steps.column_names:
        return np.empty(0, np.int64)
    return np.asarray(steps.filter(pc.fill_null(steps["skipped"], False))["step"].to_numpy())


def gather_norms(
    parameters: pa.Table, skipped: np.ndarray | Sequence[int] = (), column: str = "norm"
) -> Norms:
    """Arrange a record's table of parameters, as ``load(run)`` returns it, by step and parameter.

    Args:
        parameters: the table.
        skipped: the steps that do not count in medians.
        column: which statistic; the norm by default.

    Raises:
        MissingDataError: the table has no such column.
    """
    if column not in parameters.column_names or not parameters.num_rows:
        raise MissingDataError("the record has no gradient norms")
    steps, rows = np.unique(parameters["step"].to_numpy(), return_inverse=True)
    # Each part of a record has a dictionary of its own.
    encoded = parameters["parameter"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    known = ~np.asarray(parameters[column].is_null())
    values = np.full((len(steps), len(names)), np.nan, np.float32)
    present = np.zeros(values.shape, bool)
    values[rows[known], codes[known]] = parameters[column].to_numpy()[known]
    present[rows[known], codes[known]] = True
    # A parameter that is thawed later is met last; its place is where all are present.
    fullest = int(np.argmax(present.sum(1)))
    order = list(dict.fromkeys([*codes[rows == fullest].tolist(), *range(len(names))]))
    counted = ~np.isin(steps, skipped) & (values > 0).any(1)
    return Norms(
        tuple(names[c] for c in order), steps, values[:, order], present[:, order], counted
    )


def read_norms(run: Path | str) -> Norms:
    """Return the norms of a run's record.

    Raises:
        MissingDataError: it has none.
    """
    return gather_norms(load(run), skipped_steps(load_steps(run)))


def _is_run(path: Path) -> bool:
    return (path / FOLDER).is_dir() or Run(path).is_begun


def _matching(names: Sequence[str], globs: Sequence[str], key: str) -> list[str]:
    for glob in globs:
        if not any(matches(name, [glob]) for name in names):
            parts = [name.split(".") for name in names]
            # Globs that somebody may have meant: stem.*, *.weight.
            meant = [".".join([*p[:i], "*"]) for p in parts for i in range(1, len(p))]
            meant += [".".join(["*", *p[i:]]) for p in parts for i in range(1, len(p))]
            raise ConfigError(
                f"--parameters {glob}: matches none of the record's {len(names)} {key}s, such as "
                f"{', '.join(names[:3])}{did_you_mean(glob, dict.fromkeys([*names, *meant]))}"
            )
    return [name for name in names if not globs or matches(name, globs)]
