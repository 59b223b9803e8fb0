"""Show a sweep as a table in the terminal, a CSV file and a page."""

import csv
import io
from pathlib import Path

from rich import box
from rich.table import Table

from convtrain.process.atomic import write_atomically
from convtrain.program import relative
from convtrain.run.result import EVALUATED
from convtrain.sweeps.cells import mean_and_std
from convtrain.sweeps.reading import read_sweep
from convtrain.sweeps.results import REPLICATES, Replicates, Sweep
from convtrain.text import format_duration, make_console

MAX_COMMANDS = 30  # printed; the files list all
MAX_METRICS = 8  # the same
MAX_DIAGNOSIS = 48  # characters


def show_sweep(folder: Path) -> Sweep:
    """Print a sweep's table, and write it as CSV and as a page."""
    sweep = read_sweep(folder)
    console = make_console()
    if sweep.jobs:
        console.print()
        console.print(text_table(sweep))
        if note := sweep.tested_note():
            console.print(note)
        console.print("to train a row again:")
        groups = sweep.groups()
        for rank, group in enumerate(groups[:MAX_COMMANDS], start=1):
            console.print(f"{rank:3}  {group.command(sweep.cwd)}")
        if len(groups) > MAX_COMMANDS:
            console.print(f"     and {len(groups) - MAX_COMMANDS} more, in results.csv")
    for job in sweep.with_status("failed"):
        settings = " ".join(f"{key}={job.settings.get(key)}" for key in sweep.differing)
        console.print(f"failed: job {job.name} ({settings}): {job.error}")
        console.print(f"        its log: {relative(job.path / 'train.log')}")
    if names := [job.name for job in sweep.unmeasured]:
        console.print(f"sweep.metric={sweep.metric}: not measured by jobs {', '.join(names)}")
    console.print(sweep.standing())
    write_csv(sweep)
    if sweep.jobs:
        from convtrain.sweeps.page import write_page

        write_page(sweep)
    files = [relative(sweep.folder / name) for name in ("results.csv", "results.html")]
    console.print(f"the same as CSV and as a page: {', '.join(files)}")
    return sweep


def text_table(sweep: Sweep) -> Table:
    shown = [key for key in sweep.differing if key not in REPLICATES]
    groups, metrics = sweep.groups(), sweep.shown_metrics[:MAX_METRICS]
    averaged = " x ".join(REPLICATES[key] for key in sweep.replicates)
    table = Table(title=relative(sweep.folder), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    for key in shown:
        table.add_column(key, overflow="fold")
    for name in (*([averaged] if averaged else []), *metrics, "time"):
        table.add_column(name, justify="right")
    table.add_column("gradients")
    table.add_column("jobs")
    for rank, group in enumerate(groups, start=1):
        status = "" if group.status == "finished" else f" ({group.status})"
        table.add_row(
            str(rank),
            *(group.settings.get(key, "") for key in shown),
            *([str(len(group.jobs))] if averaged else []),
            *(mean_and_std(group, m) for m in metrics),
            format_duration(group.mean("wall_time_seconds")),
            _shortened(group.diagnosis),
            ", ".join(job.name for job in group.jobs) + status,
        )
    return table


def write_csv(sweep: Sweep) -> None:
    """Write a line for each job, in the jobs' order, with the mean and std of its row."""
    lines: dict[str, dict[str, object]] = {}
    for group in sweep.groups():
        for job in group.jobs:
            lines[job.name] = {
                **job.settings,
                **job.callback_metrics,
                **job.chosen_metrics,
                **{key: job.number(key) for key in (*EVALUATED, "wall_time_seconds")},
                "job": job.name,
                "status": job.status,
                f"{sweep.metric} mean": group.mean(sweep.metric),
                f"{sweep.metric} std": group.std(sweep.metric),
                "gradients": " ".join(job.gradients),
                "error": job.error,
                "run_dir": str(job.path),
                "command": Replicates((job,)).command(sweep.cwd),
            }
    keys = [key for job in sweep.jobs for key in job.settings]
    logged = [n for job in sweep.jobs for n in (*job.chosen_metrics, *job.callback_metrics)]
    measured = [f"{sweep.metric} mean", f"{sweep.metric} std", "wall_time_seconds"]
    last = ["gradients", "error", "run_dir", "command"]
    columns = dict.fromkeys(["job", *keys, "status", *EVALUATED, *logged, *measured, *last])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="")
    writer.writeheader()
    writer.writerows(lines[job.name] for job in sweep.jobs)
    write_atomically(sweep.folder / "results.csv", text.getvalue())


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DIAGNOSIS else f"{text[: MAX_DIAGNOSIS - 1].rstrip()}…"
