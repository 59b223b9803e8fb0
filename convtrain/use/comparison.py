"""Several runs on one page: curves, results, what differs in the configuration, gradient norms."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from convtrain.config.metrics import mode_of
from convtrain.errors import ConfigError, MissingDataError, TrainingError, did_you_mean
from convtrain.pages import page
from convtrain.pages.plots import COLOURS, PATTERNS, Series, colour_of, pattern_of, plot
from convtrain.pages.scales import Axis, plain, shortened
from convtrain.run.curves import Curve, read_curves
from convtrain.run.directory import Run, runs_in
from convtrain.run.result import tested_on_validation
from convtrain.sweeps.reading import status_of
from convtrain.text import format_duration, format_metric
from convtrain.use.compare import Row, config_rows, metric_rows, norm_rows, provenance_rows

TEMPLATE = Path(__file__).with_name("comparison.html.j2")
MAX_RUNS = COLOURS * len(PATTERNS)
MAX_SETTINGS, MAX_VALUE, MAX_LETTERS = 3, 24, 44  # of a run's label; letters
MAX_CELL = 100  # letters
LOG_RATIO = 20.0  # largest / smallest value, from which on a loss has a logarithmic axis
FIRST = ("val/loss", "val/acc", "train/loss_epoch", "train/acc_epoch", "train/loss", "train/acc")
LAST = ("lr", "images_per_second")
NAMES = {
    "train/loss": "train/loss of each entry",
    "train/acc": "train/acc of each entry",
    "train/loss_epoch": "train/loss over each epoch",
    "train/acc_epoch": "train/acc over each epoch",
    "lr": "learning rate",
    "images_per_second": "images per second",
}
SHORT = {"wall_time_seconds": "time", "images_per_second": "images/s"}


@dataclass(frozen=True)
class Compared:
    """A run beside others, among which it has a label and a number, that of its colour."""

    run: Run
    label: str
    number: int
    curves: Mapping[str, Curve]

    @property
    def status(self) -> str:
        return status_of(self.run)

    @cached_property
    def numbers(self) -> Mapping[str, object]:
        """Its result; the last values so far, if it is not finished."""
        if (result := self.run.read_result()) is not None:
            return result
        last: dict[str, object] = {name: curve.values[-1] for name, curve in self.curves.items()}
        steps = [curve.steps[-1] for curve in self.curves.values()]
        epochs = [e for curve in self.curves.values() if not math.isnan(e := curve.epochs[-1])]
        last |= {"steps": max(steps)} if steps else {}
        return last | ({"epochs": round(max(epochs), 2)} if epochs else {})


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs in directories of runs, of sweeps, or of folders with runs, each once.

    Raises:
        MissingDataError: a directory does not exist or holds no run.
        ConfigError: fewer than two runs, or more than can be told apart in a plot.
    """
    found: dict[Path, Run] = {}
    for path in paths:
        if not path.is_dir():
            near = did_you_mean(path.name, [other.name for other in path.parent.glob("*")])
            raise MissingDataError(f"{path}: no such directory{near}")
        runs = [run] if (run := Run(path)).is_begun else runs_in(path)
        if not runs:
            raise MissingDataError(f"{path}: holds no run; give directories of runs, or of a sweep")
        found |= {run.path.resolve(): run for run in runs if run.path.resolve() not in found}
    named = " ".join(map(str, paths))
    if len(found) < 2:
        raise ConfigError(f"{named}: is one run; name at least two")
    if len(found) > MAX_RUNS:
        raise ConfigError(f"{named}: {len(found)} runs; name at most {MAX_RUNS} of them")
    return list(found.values())


def compare(runs: Sequence[Run]) -> list[Compared]:
    """Read what the runs have logged; those that have logged anything have the first colours."""
    curves = [read_curves(run.path) for run in runs]
    order = sorted(range(len(runs)), key=lambda index: not curves[index])
    return [
        Compared(run, label, order.index(index) + 1, curves[index])
        for index, (run, label) in enumerate(zip(runs, _labels(runs), strict=True))
    ]


def tested_note(compared: Sequence[Compared]) -> str:
    return tested_on_validation({each.label: each.numbers for each in compared})


def default_file(runs: Sequence[Run]) -> Path:
    """Return ``compare.html`` beside the runs if they share a folder, or else in this one."""
    folders = {run.path.resolve().parent for run in runs}
    return (folders.pop() if len(folders) == 1 else Path.cwd()) / "compare.html"


def write_comparison(compared: Sequence[Compared], out: Path, command: str) -> None:
    """Write the page; ConfigError if the file cannot be written."""
    runs = [each.run for each in compared]
    values = {
        "compared": compared,
        "command": command,
        "links": [_link(each.run, out) for each in compared],
        "results": [_cells(row) for row in metric_rows(*(each.numbers for each in compared))],
        "short": SHORT,
        "tested": tested_note(compared),
        "settings": [_texts(row) for row in config_rows(*runs)],
        "surroundings": _surroundings(runs),
        "by_step": _curves(compared, by_epoch=False),
        "by_epoch": _curves(compared, by_epoch=True),
        "norms": _norms(compared),
        "colour_of": colour_of,
        "pattern_of": pattern_of,
        "shortened": shortened,
        "long": MAX_CELL,
    }
    try:
        page.write_page(out, TEMPLATE, **values)
    except (TrainingError, OSError) as error:
        raise ConfigError(f"{error}; choose another file with --out FILE") from None


# --- what a run is called -------------------------------------------------------------------------


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the settings in which the runs differ, if they are few, or else their names."""
    rows = [
        row
        for row in config_rows(*runs)
        if all(len(str(value)) <= MAX_VALUE for value in row.values)
    ]
    keys = [row.key.removesuffix(".name") for row in rows]
    last = [key.rpartition(".")[2] for key in keys]
    keys = [end if last.count(end) == 1 else key for end, key in zip(last, keys, strict=True)]
    if len(rows) <= MAX_SETTINGS:
        labels = [
            " ".join(
                f"{key}={'null' if row.values[i] is None else row.values[i]}"
                for key, row in zip(keys, rows, strict=True)
            )
            for i in range(len(runs))
        ]
        if len(set(labels)) == len(runs) and max(map(len, labels)) <= MAX_LETTERS:
            return labels
    return _names(runs)


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the last parts of the paths, as many as tell the runs apart."""
    parts = [run.path.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run.path.resolve()) for run in runs]


def _link(run: Run, out: Path) -> str:
    """Return the address of a run's report, or of its directory, as seen from the page."""
    target = run.report if run.report.exists() else run.path
    return Path(os.path.relpath(target, out.parent)).as_posix()


# --- cells ----------------------------------------------------------------------------------------


def shown(key: str, value: object) -> str:
    """Format a number of a result."""
    if not isinstance(value, int | float):
        return ""
    if key == "wall_time_seconds":
        return format_duration(value)
    if "/" in key:
        return format_metric(key.removesuffix("_epoch"), value)
    return plain(float(value))


def _cells(row: Row) -> tuple[str, list[tuple[str, bool]]]:
    """Return a row's key, and for each run the text and whether it is the best."""
    known = [v for v in row.values if isinstance(v, int | float) and math.isfinite(v)]
    best = None
    if "/" in row.key and len(set(known)) > 1:
        best = (max if mode_of(row.key.removesuffix("_epoch")) == "max" else min)(known)
    return row.key, [(shown(row.key, v), v is not None and v == best) for v in row.values]


def _surroundings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return versions and machine where they differ between the runs that have recorded them."""
    rows = [row for row in provenance_rows(*runs) if row.key != "run_id"]
    known = [i for i in range(len(runs)) if any(row.values[i] is not None for row in rows)]
    return [_texts(row) for row in rows if len({str(row.values[i]) for i in known}) > 1]


def _texts(row: Row) -> tuple[str, list[str]]:
    return row.key, ["" if value is None else str(value) for value in row.values]


# --- plots ----------------------------------------------------------------------------------------


def _curves(compared: Sequence[Compared], *, by_epoch: bool) -> list[Markup]:
    """Return a plot of each metric, over steps or over epochs."""
    names = dict.fromkeys(name for each in compared for name in each.curves)
    others = sorted(n for n in names if not n.startswith(("test/", "lr/", *FIRST, *LAST)))
    rates = sorted(name for name in names if name.startswith("lr/"))
    ordered = [name for name in (*FIRST, *others, *rates, *LAST) if name in names]
    return [_curve(compared, name, by_epoch) for name in ordered]


def _curve(compared: Sequence[Compared], name: str, by_epoch: bool) -> Markup:
    curves = [(each, each.curves[name]) for each in compared if name in each.curves]
    series = [
        Series(each.label, curve.epochs if by_epoch else curve.steps, curve.values,
               colour=each.number)
        for each, curve in curves
    ]  # fmt: skip
    values = [v for _, curve in curves for v in curve.values if math.isfinite(v)]
    kind = name.removesuffix("_epoch")
    log = kind.endswith("loss") and bool(values) and 0 < LOG_RATIO * min(values) < max(values)
    unit = "images/s" if name == "images_per_second" else name
    x = Axis("epochs" if by_epoch else "optimiser steps", low=0)
    return plot(NAMES.get(name, name), series, x, Axis(unit, log=log, percent=kind.endswith("acc")))


def _norms(
    compared: Sequence[Compared],
) -> tuple[Markup, list[Compared], list[tuple[str, list[str]]]] | None:
    """Return the plot, the runs and the table of the layers' median gradient norms, if any."""
    rows = list(norm_rows(*(each.run for each in compared)))
    recorded = [i for i in range(len(compared)) if any(row.values[i] is not None for row in rows)]
    series = []
    for index in recorded:
        known = [
            (at, v) for at, row in enumerate(rows) if isinstance(v := row.values[index], float)
        ]
        places, norms = [at for at, _ in known], [value for _, value in known]
        each = compared[index]
        series.append(Series(each.label, norms, places, kind="dots", colour=each.number))
    if not series:
        return None
    drawn = plot(
        "Median gradient norm of each layer", series, Axis("median gradient norm (L2)", log=True),
        Axis("layer, from input to output", labels=[row.key for row in rows]),
    )  # fmt: skip
    table = [
        (row.key, [plain(v) if isinstance(v := row.values[i], float) else "" for i in recorded])
        for row in rows
    ]
    return drawn, [compared[index] for index in recorded], table
