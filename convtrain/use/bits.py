"""Compare two runs bit by bit: weights, metrics and gradient records."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from convtrain.errors import MissingDataError
from convtrain.gradients.record.store import TABLES, load
from convtrain.run.directory import Run
from convtrain.run.result import metric_names
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.weight_average import AVERAGE

CLOCKS = ("time", "seconds")  # suffixes of columns that always differ


class Comparison(NamedTuple):
    """What was compared, and a line for each difference."""

    compared: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return not self.differing


def compare_bits(first: Path | str, second: Path | str) -> Comparison:
    """Compare the last weights, the metrics and the gradient records of two finished runs."""
    runs = Run(first), Run(second)
    found = [_weights(*runs), _metrics(*runs), *(_records(*runs, table) for table in TABLES)]
    compared = tuple(what for what, _ in found if what)
    return Comparison(compared, tuple(line for _, lines in found for line in lines))


def _weights(first: Run, second: Run) -> tuple[str, list[str]]:
    a, b = _tensors(first), _tensors(second)
    names = list(dict.fromkeys([*a, *b]))
    shared = [name for name in names if name in a and name in b]
    equal = {name for name in shared if _equal(a[name], b[name])}
    lines = []
    if wrong := [name for name in names if name not in equal]:
        distance = max((_distance(a[n], b[n]) for n in shared if n not in equal), default=0.0)
        lines.append(
            f"{len(wrong)} of {len(names)} tensors of the network, by up to {distance:.2g}, "
            f"such as {wrong[0]}"
        )
    return f"{len(names)} tensors of the network", lines


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return the weights and, if they are an average, those that a resumed run continues with."""
    saved = load_checkpoint(run.last_checkpoint)
    trained = saved.get(AVERAGE, {}).get("trained", {})
    return {**saved["state_dict"], **{f"{name} as trained": t for name, t in trained.items()}}


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Compare bits: NaN equals itself, and 0 does not equal -0."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return first.contiguous().numpy(force=True).tobytes() == second.numpy(force=True).tobytes()


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    if first.shape != second.shape:
        return float("inf")
    return float((first.double() - second.double()).abs().max()) if first.numel() else 0.0


def _metrics(first: Run, second: Run) -> tuple[str, list[str]]:
    a, b = first.finished_result(), second.finished_result()
    keys = [key for key in (*metric_names(a, b), "steps", "epochs") if key in a or key in b]
    values = ((key, a.get(key), b.get(key)) for key in keys)
    lines = [f"{key}: {x!r} and {y!r}" for key, x, y in values if repr(x) != repr(y)]
    return f"{len(keys)} metrics", lines


def _records(first: Run, second: Run, table: str) -> tuple[str, list[str]]:
    """Compare one table; a column that only the second run has comes from a later version."""
    what, found = f"the record's {table}", []
    for run in (first, second):
        with suppress(MissingDataError):
            found.append(dict(_columns(run, table)))
    if not found:
        return "", []
    if len(found) == 1:
        return what, [f"{what}: one run has none"]
    a, b = found
    wrong = [name for name, values in a.items() if b.get(name) != values]
    rows = len(next(iter(a.values())))
    return f"{rows:,} rows of {what}", [f"{what}: {', '.join(wrong)}"] if wrong else []


def _columns(run: Run, table: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each column's values as text, in which NaN equals itself."""
    read = load(run.path, table)
    for name in read.column_names:
        if not name.endswith(CLOCKS):
            yield name, list(map(repr, read[name].to_pylist()))
