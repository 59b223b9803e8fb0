"""The door that every training of a run goes through, from the command line and from Python."""

import logging
from collections.abc import Sequence
from pathlib import Path

from convtrain.command.resume import refuse_lowered, refuse_resumed, why_not_anew
from convtrain.config.schema import Config
from convtrain.errors import OccupiedError
from convtrain.launch.launcher import processes_to_start, quiet_libraries, train_in_processes
from convtrain.process.imports import imports_kept
from convtrain.process.lock import locked
from convtrain.process.ranks import as_launched, is_main_process
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result

log = logging.getLogger("convtrain")


def train(
    config: Config,
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    signals: Signals | None = None,
    *,
    quiet: bool = False,
) -> Result:
    """Train a run as ``python train.py`` does, and return its result.

    Args:
        config: the validated configuration. Where its ``resume`` names ``run_dir``, the run there
            is resumed; a finished one is not trained again.
        run_dir: where everything that the run leaves behind goes.
        overrides: what was typed on the command line, for the record.
        signals: that end the run where it can be resumed.
        quiet: keep what libraries print out of the terminal, for the whole process.

    Returns:
        What is in ``run_dir/result.json``.

    Raises:
        OccupiedError: the directory holds another run, or another process is at work in it.
        ConvtrainError: one line on what else a user can mend.
        Interrupted: a signal has ended the run, which is saved.
    """
    run, signals = Run(run_dir), signals or Signals()
    as_launched(config)  # which refuses devices that do not fit those who started this process
    if not is_main_process():  # rank 0 holds the lock, and decides as this one does
        if config.resume and (result := _finished_result(config, run)) is not None:
            return result
        return train_anywhere(config, run.path, overrides, signals, quiet=quiet)
    with locked(run.path):
        if config.resume:
            refuse_resumed(config, run)
            if (result := _finished_result(config, run)) is not None:
                return result
        elif (reason := why_not_anew(run)) is not None:
            raise OccupiedError(f"{run.path}: {reason}")
        else:
            run.announce(config, overrides)
        return train_anywhere(config, run.path, overrides, signals, quiet=quiet)


def train_anywhere(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str],
    signals: Signals,
    *,
    quiet: bool = True,
) -> Result:
    """Train in this process, or in one process for each device; the directory is ours."""
    if (count := processes_to_start(config)) > 1:
        return train_in_processes(count, config, run_dir, overrides, signals)
    return train_here(config, run_dir, overrides, signals, quiet=quiet)


def train_here(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str],
    signals: Signals,
    *,
    quiet: bool = True,
) -> Result:
    """Train in this process."""
    with imports_kept():
        if quiet:
            quiet_libraries()
        from convtrain.pipeline import train as train_in_this_process

    return train_in_this_process(config, run_dir, overrides, signals)


def _finished_result(config: Config, run: Run) -> Result | None:
    """Return the result of a run that is resumed though nothing is left to do."""
    if (result := run.read_result()) is None:
        return None
    asked, before = config.trainer, run.read_config().get("trainer", {})
    if (asked.max_epochs, asked.max_steps) != (before.get("max_epochs"), before.get("max_steps")):
        epochs, steps = result.get("epochs", 0), result.get("steps", 0)
        refuse_lowered(config, epochs=epochs, steps=steps)
        if epochs < asked.max_epochs and (asked.max_steps is None or steps < asked.max_steps):
            return None
    log.warning("%s is finished; to train longer, add trainer.max_epochs=N", run.path)
    return result
