"""Hydra's callback around a sweep: its record at the start, its table and status at the end."""

import atexit
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from convtrain.command.sweep import RECORD, is_search
from convtrain.errors import ConvtrainError
from convtrain.process.atomic import line_on_full_disk, write_atomically
from convtrain.run.commands import is_option, options_of, overrides_in, train_command

if TYPE_CHECKING:
    from convtrain.sweeps.live import LiveLine

_line: "LiveLine | None" = None  # of this process, which a callback that travels cannot hold


class SweepTable(Callback):
    """Keeps the record of a sweep and shows what comes of it.

    Args:
        identity: tells one sweep from another; train.py finds it.
        jobs: how many there are, if that is known before.
        swept: the keys that have several values; the names of the jobs' directories hold them.
        gpus: that they take turns at; each reads them from Hydra's configuration.
    """

    def __init__(
        self,
        identity: str | None = None,
        jobs: int | None = None,
        gpus: Sequence[str] | None = None,
        swept: Sequence[str] = (),
    ) -> None:
        self.identity, self.jobs, self.gpus = identity, jobs, gpus

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _failing_with_status(config):
            self._begin(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        with _failing_with_status(config):
            if is_search(config.hydra):
                count_distinct(folder)
        if not close_sweep(folder):
            sys.exit(1)

    def _begin(self, config: DictConfig) -> None:
        if is_search(config.hydra):
            end_search_without_best()
        from convtrain.sweeps.leftovers import end_with_command
        from convtrain.sweeps.live import LiveLine
        from convtrain.sweeps.stopping import FILE, listen

        global _line
        folder, metric = Path(config.hydra.sweep.dir), str(config.sweep.metric)
        begin_sweep(
            folder, retry_failed=bool(config.sweep.retry_failed), identity=self.identity,
            jobs=self.jobs, metric=metric, command=_command(config),
        )  # fmt: skip
        _line = LiveLine(folder, metric, self.jobs)
        _line.start()
        atexit.register(_close_what_broke_off, folder)
        listen(folder, elsewhere=_is_elsewhere(config), close=lambda: close_sweep(folder))
        if not _is_elsewhere(config):
            end_with_command(folder / FILE)


def end_search_without_best() -> None:
    """Let a search end as other sweeps do where no job has measured anything.

    Optuna raises a ValueError then, because it looks for the best of no trials.
    """
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

    search = OptunaSweeper.sweep

    def sweep(self: OptunaSweeper, arguments: list[str]) -> None:
        try:
            search(self, arguments)
        except ValueError as error:
            if "No trials are completed" not in str(error):
                raise

    OptunaSweeper.sweep = sweep  # type: ignore[method-assign]


@contextmanager
def _failing_with_status(config: DictConfig) -> Iterator[None]:
    """Exit with status 1 where anything goes wrong, of which Hydra would make a warning."""
    try:
        yield
    except Exception as error:
        _report(error, Path(config.hydra.sweep.dir))
        sys.exit(1)


def _report(error: Exception, folder: Path) -> None:
    """Print what went wrong at a sweep's begin or end."""
    told = line_on_full_disk(error, folder) or (isinstance(error, ConvtrainError) and str(error))
    print(told or "".join(traceback.format_exception(error)).rstrip(), file=sys.stderr)


def _close_what_broke_off(folder: Path) -> None:
    """Show the table of a sweep that its sweeper or launcher has ended by an exception."""
    if is_under_way():
        close_sweep(folder)


def is_under_way() -> bool:
    """Tell whether a sweep was started by this process, and not only a job of it."""
    return _line is not None


def _is_elsewhere(config: DictConfig) -> bool:
    return str(config.hydra.launcher.get("_target_")).endswith("SlurmLauncher")


def begin_sweep(folder: Path, *, retry_failed: bool, **record: Any) -> None:
    """Write down what a sweep is; say where it stands if it goes on; forgive what has failed."""
    from convtrain.run.directory import Run
    from convtrain.sweeps.jobs import REFUSED
    from convtrain.sweeps.results import read_sweep
    from convtrain.sweeps.table import standing

    (folder / REFUSED).unlink(missing_ok=True)
    record["since"] = time.time()
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
    sweep = replace(read_sweep(folder), since=0.0)
    if sweep.jobs:
        print(f"resumes {folder}: {standing(sweep)}", file=sys.stderr)
    if retry_failed:
        for job in sweep.jobs:
            if job.status == "failed":
                Run(job.path).error.unlink(missing_ok=True)


def count_distinct(folder: Path) -> None:
    """Write down how many jobs a search had that is over: trials with the same values are one."""
    from convtrain.sweeps.results import read_sweep

    record = json.loads((folder / RECORD).read_text())
    record["jobs"] = len(read_sweep(folder).current)
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")


def close_sweep(folder: Path) -> bool:
    """Show a sweep's table.

    Returns:
        Whether all its jobs are finished and have measured ``sweep.metric``, and it was shown.
    """
    from convtrain.sweeps.jobs import REFUSED
    from convtrain.sweeps.table import show_sweep

    global _line
    if _line is not None:
        _line.stop()
        _line = None
    try:
        sweep, refused = show_sweep(folder), (folder / REFUSED).exists()
        return sweep.is_finished and not sweep.unmeasured and not refused
    except Exception as error:
        _report(error, folder)
        return False


def _command(config: DictConfig) -> str:
    """Return the command that was typed."""
    typed = overrides_in(config.hydra.overrides.hydra) + overrides_in(config.hydra.overrides.task)
    kept = [text for text in typed if not is_option(text)]
    return train_command("-m", *options_of(config.hydra), *kept)
