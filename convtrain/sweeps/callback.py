"""Hydra's callback around a sweep: it stores the sweep's record, and shows its table at the end."""

import atexit
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from convtrain.command.sweep import RECORD, is_search
from convtrain.errors import ConvtrainError
from convtrain.process.atomic import line_on_full_disk, write_atomically
from convtrain.program import typed_in
from convtrain.run.commands import is_option, options_of, overrides_in, train_command

if TYPE_CHECKING:
    from convtrain.sweeps.live import LiveLine

_line: "LiveLine | None" = None  # global, because Hydra pickles the callback but no thread


class SweepTable(Callback):
    """Stores and shows a sweep; its jobs read ``gpus`` and ``swept`` from Hydra's configuration."""

    def __init__(
        self,
        identity: str | None = None,
        jobs: int | None = None,
        gpus: Sequence[str] | None = None,
        swept: Sequence[str] = (),
    ) -> None:
        self.identity, self.jobs = identity, jobs

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        from convtrain.sweeps.leftovers import end_with_command
        from convtrain.sweeps.live import LiveLine
        from convtrain.sweeps.stopping import FILE, listen

        global _line
        with _exits_on_error(config):
            folder, metric = Path(config.hydra.sweep.dir), str(config.sweep.metric)
            mode = str(config.sweep.get("mode", "auto"))
            if is_search(config.hydra):
                _let_searches_end_without_best()
            begin_sweep(
                folder, retry_failed=bool(config.sweep.retry_failed), identity=self.identity,
                jobs=self.jobs, metric=metric, mode=mode, command=_typed_command(config),
                cwd=str(typed_in()),
            )  # fmt: skip
            _line = LiveLine(folder, metric, self.jobs, mode)
            _line.start()
            # An exception in the sweeper or launcher ends the command without on_multirun_end.
            atexit.register(lambda: is_under_way() and close_sweep(folder))
            in_queue = str(config.hydra.launcher.get("_target_")).endswith("SlurmLauncher")
            listen(folder, elsewhere=in_queue, close=lambda: close_sweep(folder))
            if not in_queue:
                end_with_command(folder / FILE)

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        folder = Path(config.hydra.sweep.dir)
        with _exits_on_error(config):
            if is_search(config.hydra):
                count_distinct(folder)
        if not close_sweep(folder):
            sys.exit(1)


def _let_searches_end_without_best() -> None:
    """Accept a search that measured nothing, for which Optuna raises a ValueError."""
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
def _exits_on_error(config: DictConfig) -> Iterator[None]:
    """Exit with status 1 on any error; Hydra would turn it into a warning."""
    try:
        yield
    except Exception as error:
        _print_error(error, Path(config.hydra.sweep.dir))
        sys.exit(1)


def _print_error(error: Exception, folder: Path) -> None:
    line = line_on_full_disk(error, folder) or (isinstance(error, ConvtrainError) and str(error))
    print(line or "".join(traceback.format_exception(error)).rstrip(), file=sys.stderr)


def is_under_way() -> bool:
    """Return whether this process has started a sweep, not only a job of one."""
    return _line is not None


def begin_sweep(folder: Path, *, retry_failed: bool, **record: object) -> None:
    """Store a sweep's record, and print its progress if it is resumed."""
    from convtrain.run.directory import Run
    from convtrain.sweeps.jobs import REFUSED
    from convtrain.sweeps.reading import read_sweep

    (folder / REFUSED).unlink(missing_ok=True)
    _store(folder, {**record, "since": time.time()})
    sweep = replace(read_sweep(folder), since=0.0)
    if sweep.jobs:
        print(f"resumes {folder}: {sweep.standing()}", file=sys.stderr)
    if retry_failed:
        for job in sweep.with_status("failed"):
            Run(job.path).error.unlink(missing_ok=True)


def count_distinct(folder: Path) -> None:
    """Store the number of jobs of a finished search; trials with equal values are one job."""
    from convtrain.sweeps.reading import read_record, read_sweep

    _store(folder, {**read_record(folder), "jobs": len(read_sweep(folder).current)})


def _store(folder: Path, record: dict[str, object]) -> None:
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")


def close_sweep(folder: Path) -> bool:
    """Show a sweep's table; return whether this worked and all jobs measured the metric."""
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
        _print_error(error, folder)
        return False


def _typed_command(config: DictConfig) -> str:
    typed = overrides_in(config.hydra.overrides.hydra) + overrides_in(config.hydra.overrides.task)
    kept = [text for text in typed if not is_option(text)]
    return train_command("-m", *options_of(config.hydra), *kept)
