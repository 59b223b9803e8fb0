"""A sweep's table: a row for each job, printed at the end and kept as CSV."""

import csv
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from convtrain.runs.directory import RunDirectory

METRICS = ("test/acc", "test/loss", "val/acc", "val/loss", "wall_time_seconds")


class SweepTable(Callback):
    """Hydra's callback: after the last job, make the table; exit with status 1 if a job failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not show_sweep(Path(config.hydra.sweep.dir)):
            sys.exit(1)


def show_sweep(folder: Path) -> bool:
    """Print the table and write it; return whether all jobs that were started are finished."""
    rows = sweep_rows(folder)
    if rows:
        write_csv(folder / "results.csv", rows)
        print_table(folder, rows)
    return all(row["status"] == "finished" for row in rows)


def sweep_rows(folder: Path) -> list[dict[str, Any]]:
    """Read what the jobs of a sweep left; in the order of their numbers."""
    jobs = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    rows = []
    for path in sorted(jobs, key=lambda p: int(p.name)):
        run = RunDirectory(path)
        result = run.read_result()
        status = "finished" if result else "failed" if run.error.is_file() else "unfinished"
        settings = dict(o.split("=", maxsplit=1) for o in run.read_overrides() if "=" in o)
        metrics = {key: result[key] for key in METRICS if result and key in result}
        error = run.error.read_text().strip() if run.error.is_file() else ""
        rows.append(
            {"job": int(path.name), **settings, "status": status, **metrics, "error": error,
             "run_dir": str(path)}
        )  # fmt: skip
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def print_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from convtrain.runs.report import make_console, relative

    columns = [key for key in dict.fromkeys(k for row in rows for k in row) if key != "run_dir"]
    shown = [key for key in columns if _differs(key, rows) or key in ("job", *METRICS)]
    table = Table(title=relative(folder), title_justify="left")
    for key in shown:
        table.add_column(key, justify="right" if key in METRICS else "left")
    for row in rows:
        table.add_row(*(_text(key, row.get(key)) for key in shown))
    console = make_console()
    console.print()
    console.print(table)
    console.print(f"the same as CSV: {relative(folder / 'results.csv')}")


def _differs(key: str, rows: list[dict[str, Any]]) -> bool:
    return len({row.get(key) for row in rows}) > 1


def _text(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2%}" if key.endswith("/acc") else f"{value:.4g}"
    return "" if value is None else str(value).splitlines()[0] if str(value) else ""
