"""Two runs side by side: what they were told, what they ran on, what came out, how it got there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from convtrain.config.identity import leaves
from convtrain.errors import MissingDataError
from convtrain.gradients.reading import by_layer, gather_norms
from convtrain.gradients.record.store import load
from convtrain.gradients.report import short
from convtrain.run.directory import Run

METRICS = (
    "val/acc", "val/loss", "test/acc", "test/loss", "train/acc_epoch", "train/loss_epoch", "steps",
    "epochs", "parameters", "wall_time_seconds", "images_per_second",
)  # fmt: skip
ABSENT = "-"


@dataclass(frozen=True)
class Pair:
    """A key with its value in each of two runs, None where a run has none."""

    key: str
    first: Any
    second: Any

    @property
    def is_equal(self) -> bool:
        return bool(self.first == self.second)


def show_difference(console: Console, first: Path | str, second: Path | str) -> None:
    """Print config, versions, metrics and gradient norms of two runs side by side.

    Raises:
        MissingDataError: one of them is no run.
        CorruptDataError: one of their files cannot be read.
    """
    runs = [Run(path) for path in (first, second)]
    for run in runs:
        run.require()
    for letter, run in zip("AB", runs, strict=True):
        console.print(f"{letter}  {run.path}")
    console.print()
    for title, pairs in (
        ("config", list(config_pairs(*runs))),
        ("versions and machine", list(provenance_pairs(*runs))),
    ):
        different = [pair for pair in pairs if not pair.is_equal]
        if different:
            console.print(_table(title, different))
        else:
            console.print(f"{title}: the same")
        console.print()
    console.print(_table("metrics", list(metric_pairs(*runs)), change=True))
    console.print()
    norms = list(norm_pairs(*runs))
    if norms:
        console.print(_table("median gradient norm", norms, ratio=True))
    else:
        console.print("gradients: not recorded by both")


def config_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield the keys that make two runs different trainings."""
    a, b = (dict(leaves(run.read_config())) for run in (first, second))
    yield from (Pair(key, a.get(key), b.get(key)) for key in first.differing(second.read_config()))


def provenance_pairs(first: Run, second: Run) -> Iterator[Pair]:
    a, b = (dict(leaves(run.read_provenance())) for run in (first, second))
    yield from (pair for pair in _pairs(a, b) if pair.key not in ("command", "seed"))


def metric_pairs(first: Run, second: Run) -> Iterator[Pair]:
    a, b = (run.read_result() or {} for run in (first, second))
    yield from (Pair(key, a.get(key), b.get(key)) for key in METRICS if key in a or key in b)


def norm_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield each layer's median gradient norm; nothing where a run has no record."""
    medians = []
    for run in (first, second):
        try:
            norms = by_layer(gather_norms(load(run.path)))
        except MissingDataError:
            return
        values = norms.over_steps(np.median)
        medians.append(dict(zip(norms.names, map(float, values), strict=True)))
    yield from _pairs(medians[0], medians[1])


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Pair]:
    for key in dict.fromkeys([*first, *second]):
        yield Pair(key, first.get(key), second.get(key))


def _table(title: str, pairs: list[Pair], *, change: bool = False, ratio: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(title, overflow="fold")
    numbers = change or ratio
    for letter in "AB":
        table.add_column(letter, justify="right" if numbers else "left", overflow="fold")
    if numbers:
        table.add_column("B - A" if change else "B / A", justify="right")
    for pair in pairs:
        cells = [_cell(value, ratio) for value in (pair.first, pair.second)]
        if numbers:
            cells.append(_change(pair) if change else _ratio(pair))
        table.add_row(pair.key, *cells)
    return table


def _cell(value: Any, is_norm: bool) -> str:
    if value is None:
        return ABSENT
    if is_norm:
        return short(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _change(pair: Pair) -> str:
    if pair.first is None or pair.second is None:
        return ABSENT
    return "same" if pair.is_equal else f"{pair.second - pair.first:+.3g}"


def _ratio(pair: Pair) -> str:
    if not pair.first or pair.second is None:
        return ABSENT
    return "same" if pair.is_equal else f"{pair.second / pair.first:.3g}"
