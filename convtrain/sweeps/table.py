"""A sweep as text and as CSV: the best first, with what reproduces each row."""

import csv
import io
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from convtrain.process.atomic import write_atomically
from convtrain.run.commands import relative
from convtrain.sweeps.results import METRICS, SEED, Sweep, failures, read_sweep
from convtrain.text import make_console

COMMANDS = 30  # rows whose commands are printed; the files have them all
LONGEST = 48  # characters of a verdict


def show_sweep(folder: Path) -> Sweep:
    """Print a sweep's table, then write it as CSV and as a page; return the sweep.

    Raises:
        MissingDataError: there is no sweep.
        TrainingError: a file cannot be written.
    """
    sweep = read_sweep(folder)
    console = make_console()
    if sweep.jobs:
        console.print()
        console.print(text_table(sweep))
        _print_commands(sweep)
    for job in failures(sweep.current):
        settings = " ".join(f"{key}={job.settings.get(key)}" for key in sweep.differing)
        console.print(f"failed: job {job.name} ({settings}): {job.error}")
        console.print(f"        its log: {relative(job.path / 'train.log')}")
    if names := [job.name for job in sweep.unmeasured]:
        console.print(f"sweep.metric={sweep.metric}: not measured by jobs {', '.join(names)}")
    console.print(standing(sweep))
    write_csv(sweep)
    if sweep.jobs:
        from convtrain.sweeps.page import write_page

        write_page(sweep)
    files = [relative(sweep.folder / name) for name in ("results.csv", "results.html")]
    console.print(f"the same as CSV and as a page: {', '.join(files)}")
    return sweep


def standing(sweep: Sweep) -> str:
    """Return how many jobs the last command has, by how they stand."""
    total = max(sweep.total or 0, len(sweep.current))
    parts = [f"{sweep.count('finished')} of {total} jobs finished"]
    for status in ("failed", "running", "unfinished"):
        if count := sweep.count(status):
            parts.append(f"{count} {status}")
    if waiting := total - sweep.count("finished", "failed", "running", "unfinished"):
        parts.append(f"{waiting} not started")
    before = len(sweep.jobs) - len(sweep.current)
    return ", ".join(parts) + (f"; {before} from before" if before else "")


def text_table(sweep: Sweep) -> Table:
    shown = [key for key in sweep.differing if key != SEED]
    seeds = any(len(row.jobs) > 1 for row in sweep.rows())
    table = Table(title=relative(sweep.folder), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    for key in shown:
        table.add_column(key, overflow="fold")
    if seeds:
        table.add_column("seeds", justify="right")
    for metric in shown_metrics(sweep):
        table.add_column(metric, justify="right")
    table.add_column("time", justify="right")
    table.add_column("gradients")
    table.add_column("jobs")
    for rank, row in enumerate(sweep.rows(), start=1):
        values = row.values("wall_time_seconds")
        cells = [str(rank), *(row.settings.get(key, "") for key in shown)]
        cells += [str(len(row.jobs))] if seeds else []
        cells += [
            spread(metric, row.mean(metric), row.deviation(metric))
            for metric in shown_metrics(sweep)
        ]
        told = "" if row.status == "finished" else f" ({row.status})"
        table.add_row(
            *cells,
            duration(sum(values) / len(values)) if values else "",
            shortened(row.verdict),
            ", ".join(job.name for job in row.jobs) + told,
        )
    return table


def _print_commands(sweep: Sweep) -> None:
    console, rows = make_console(), sweep.rows()
    console.print("to train a row again:")
    for rank, row in enumerate(rows[:COMMANDS], start=1):
        console.print(f"{rank:3}  {row.command()}")
    if len(rows) > COMMANDS:
        console.print(f"     and {len(rows) - COMMANDS} more, in results.csv")


def write_csv(sweep: Sweep) -> Path:
    """Write a line a job, in the order of their numbers, with its row's mean and deviation."""
    keys = list(dict.fromkeys(key for job in sweep.jobs for key in job.settings))
    lines: dict[str, dict[str, Any]] = {}
    for row in sweep.rows():
        mean, deviation = row.mean(sweep.metric), row.deviation(sweep.metric)
        for job in row.jobs:
            lines[job.name] = {
                "job": job.name,
                **job.settings,
                "status": job.status,
                **{metric: job.result.get(metric, "") for metric in METRICS},
                **job.callback_metrics,
                f"{sweep.metric} mean": "" if mean is None else mean,
                f"{sweep.metric} deviation": "" if deviation is None else deviation,
                "wall_time_seconds": job.result.get("wall_time_seconds", ""),
                "gradients": " ".join(job.result.get("gradients", ())),
                "error": job.error,
                "run_dir": str(job.path),
                "command": type(row)((job,)).command(),
            }
    measured = (f"{sweep.metric} mean", f"{sweep.metric} deviation", "wall_time_seconds")
    logged = dict.fromkeys(name for job in sweep.jobs for name in job.callback_metrics)
    columns = list(dict.fromkeys(["job", *keys, "status", *METRICS, *logged, *measured]))
    columns += ["gradients", "error", "run_dir", "command"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(lines[job.name] for job in sweep.jobs)
    path = sweep.folder / "results.csv"
    write_atomically(path, text.getvalue())
    return path


def shown_metrics(sweep: Sweep) -> list[str]:
    """Return the metric that ranks, and those that one looks at beside it."""
    return list(dict.fromkeys((sweep.metric, "test/acc", "val/loss")))


def number(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric.endswith("acc") else f"{value:.4g}"


def spread(metric: str, mean: float | None, deviation: float | None) -> str:
    """Return a mean and, where there is one, its deviation."""
    if mean is None:
        return ""
    if deviation is None:
        return number(metric, mean)
    rough = number(metric, deviation) if metric.endswith("acc") else f"{deviation:.2g}"
    return f"{number(metric, mean)} ± {rough}"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if (tenths := round(seconds, 1)) < 60:
        return f"{tenths:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rstrip()}…"
