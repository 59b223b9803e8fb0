"""Reading a record: which run, which rows of it, and the norms as one array."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from convtrain.errors import ConfigError, MissingDataError, did_you_mean
from convtrain.gradients.layers import layer_norms
from convtrain.gradients.record.store import FOLDER
from convtrain.run.directory import Run
from convtrain.text import matches

SHOWN = 3  # names in a message that lists some


@dataclass(frozen=True)
class Norms:
    """Gradient norms of a run.

    Attributes:
        names: of parameters or layers (P), in the order of the network.
        steps: int64 (S,), those recorded.
        values: float (S, P), NaN where there was no gradient; ``present`` tells it from a
            gradient that is NaN.
        present: bool (S, P).
    """

    names: tuple[str, ...]
    steps: np.ndarray
    values: np.ndarray
    present: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        return self.present & np.isfinite(self.values)

    @property
    def nonfinite(self) -> np.ndarray:
        return self.present & ~np.isfinite(self.values)

    def without(self, steps: np.ndarray) -> "Norms":
        """Leave some steps out, unless that would leave none."""
        kept = ~np.isin(self.steps, steps)
        if not kept.any():
            return self
        return replace(
            self, steps=self.steps[kept], values=self.values[kept], present=self.present[kept]
        )

    def over_steps(self, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        """Return a statistic of each column's finite norms, NaN where it has none: float64 (P,)."""
        columns = zip(self.values.T.astype(np.float64), self.finite.T, strict=True)
        return np.array([statistic(v[kept]) if kept.any() else np.nan for v, kept in columns])


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
    inside = [folder for folder in run.glob("*") if _is_run(folder)]
    example = max(inside) if inside else "logs/runs/convnet/2026-01-31_12-00-00-a1b2"
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
    names = pc.unique(table[key].cast(pa.string())).to_pylist()
    for glob in globs:
        if not any(matches(name, [glob]) for name in names):
            raise ConfigError(_no_match(glob, key, names))
    chosen = [name for name in names if matches(name, globs)]
    return table.filter(pc.is_in(table[key].cast(pa.string()), pa.array(chosen, pa.string())))


def gather_norms(parameters: pa.Table) -> Norms:
    """Arrange a record's table of parameters, as ``load(run)`` returns it, by step and parameter.

    Raises:
        MissingDataError: the table has no norms.
    """
    if "norm" not in parameters.column_names or not parameters.num_rows:
        raise MissingDataError("the record has no gradient norms")
    steps, rows = np.unique(parameters["step"].to_numpy(), return_inverse=True)
    # Each part of a record has a dictionary of its own.
    column = parameters["parameter"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes, names = column.indices.to_numpy(), column.dictionary.to_pylist()
    norm = parameters["norm"].to_numpy().astype(np.float32)
    known = ~np.asarray(parameters["norm"].is_null())
    values = np.full((len(steps), len(names)), np.nan, np.float32)
    present = np.zeros(values.shape, bool)
    values[rows[known], codes[known]] = norm[known]
    present[rows[known], codes[known]] = True
    # What is thawed later is first met last, but stands in its place where all are present.
    fullest = int(np.argmax(present.sum(1)))
    order = list(dict.fromkeys([*codes[rows == fullest].tolist(), *range(len(names))]))
    return Norms(tuple(names[c] for c in order), steps, values[:, order], present[:, order])


def by_layer(norms: Norms) -> Norms:
    """Return the norms of layers; see :func:`convtrain.gradients.layers.layer_norms`."""
    names, values, present = layer_norms(norms.names, norms.values, norms.present)
    return Norms(names, norms.steps, values, present)


def _is_run(path: Path) -> bool:
    return (path / FOLDER).is_dir() or Run(path).is_begun


def _no_match(glob: str, key: str, names: Sequence[str]) -> str:
    return (
        f"--parameters {glob}: matches none of the record's {len(names)} {key}s, such as "
        f"{', '.join(names[:SHOWN])}{did_you_mean(glob, _globs(names))}"
    )


def _globs(names: Iterable[str]) -> list[str]:
    """Return the names, and the globs that somebody may have meant: ``stem.*``, ``*.weight``."""
    found = dict.fromkeys(names)
    for name in list(found):
        parts = name.split(".")
        for place in range(1, len(parts)):
            found[".".join([*parts[:place], "*"])] = None
            found[".".join(["*", *parts[place:]])] = None
    return list(found)
