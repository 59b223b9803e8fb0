"""The entry that every training of a run goes through, from the command line and from Python."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from convtrain.command.resume import refuse_lowered, refuse_resumed, why_not_anew
from convtrain.config.schema import Config
from convtrain.errors import OccupiedError
from convtrain.launch.launcher import train_in_processes
from convtrain.launch.libraries import importing_pipeline
from convtrain.process.lock import locked
from convtrain.process.ranks import as_launched, is_main_process, rank_info
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
        config: the validated configuration. If its ``resume`` names ``run_dir``, the run there is
            resumed; a finished run is not trained again.
        run_dir: the directory for everything that the run writes.
        overrides: what was typed on the command line, to be stored with the run.
        signals: stop the training where it can be resumed.
        quiet: keep the libraries' notices out of the terminal, for the rest of the process.

    Returns:
        The content of ``run_dir/result.json``.

    Raises:
        OccupiedError: the directory holds another run, or another process works in it.
        ConvtrainError: one line on anything else that a user can mend.
        Interrupted: a signal has stopped the run, which is saved.
    """
    run, signals = Run(run_dir), signals or Signals()
    as_launched(config)  # refuses devices other than those of the processes that were started
    if not is_main_process():  # rank 0 holds the lock, and comes to the same decision
        if (result := _result_if_finished(config, run)) is not None:
            return result
        return train_anywhere(config, run.path, overrides, signals, quiet=quiet)
    with locked(run.path):
        if config.resume:
            refuse_resumed(config, run)
            if (result := _result_if_finished(config, run)) is not None:
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
    share_cores: Callable[[int], object] | None = None,
) -> Result:
    """Train in a directory that the caller has locked: in this process, or in one per device.

    Args:
        share_cores: of a job that shares this process with later jobs; called with the number of
            processes that are started, 0 for none. A strategy such as DDP leaves a process group
            behind, on one device too, so such a job gets processes of its own.
    """
    count = processes_to_start(config)
    alone = count == 1 and (share_cores is None or config.trainer.strategy == "auto")
    if share_cores is not None:
        share_cores(0 if alone else count)
    if not alone:
        return train_in_processes(count, config, run_dir, overrides, signals)
    with importing_pipeline(quiet=quiet):
        from convtrain.pipeline import train as train_in_this_process

    return train_in_this_process(config, run_dir, overrides, signals)


def processes_to_start(config: Config) -> int:
    """Return how many processes a training needs; 1 where a launcher has started them all.

    Raises:
        ConfigError: the machine lacks the devices asked for.
    """
    chosen = config.trainer
    if rank_info().launcher is not None:
        return 1
    if isinstance(chosen.devices, int):
        return chosen.devices
    if chosen.strategy == "auto":
        return 1
    from convtrain.training.devices import check_devices, device_count

    check_devices(chosen.accelerator, chosen.devices, chosen.strategy)
    return device_count(chosen.accelerator)


def _result_if_finished(config: Config, run: Run) -> Result | None:
    """Return the result of a resumed run that has nothing left to train."""
    if not config.resume or (result := run.read_result()) is None:
        return None
    limits, before = config.trainer, run.read_config().get("trainer", {})
    if (limits.max_epochs, limits.max_steps) != (before.get("max_epochs"), before.get("max_steps")):
        epochs, steps = result.get("epochs", 0), result.get("steps", 0)
        refuse_lowered(config, epochs=epochs, steps=steps)
        if epochs < limits.max_epochs and (limits.max_steps is None or steps < limits.max_steps):
            return None
    log.warning("%s is finished; to train longer, add trainer.max_epochs=N", run.path)
    return result
