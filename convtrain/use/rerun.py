"""Training a run again from its own record, to see whether the bits are the same."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from convtrain.command.check import resolve_config
from convtrain.command.resume import read_config
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError
from convtrain.launch.launcher import processes_to_start
from convtrain.launch.start import train_anywhere
from convtrain.process.imports import imports_kept
from convtrain.process.lock import locked
from convtrain.process.ranks import as_launched
from convtrain.process.signals import Signals
from convtrain.process.stamp import new_stamp
from convtrain.run.directory import Run


def rerun(console: Console, run_dir: Path | str, out: Path | str | None = None) -> bool:
    """Train a finished run again beside it, and print whether the bits are the same.

    Configuration and number of threads are those of the record; versions and machine are what is
    here, and are named where they differ and the bits do as well.

    Args:
        console: to print to.
        run_dir: the run's directory.
        out: a directory for the new one; beside it otherwise.

    Returns:
        Whether weights, metrics and gradient record are the same bits.

    Raises:
        ConfigError: it is no run, or not finished, or ``out`` holds something.
        TrainingError: the training fails.
        Interrupted: a signal ends it.
    """
    original = Run(run_dir)
    config = _recorded_config(original)
    folder = Path(out) if out is not None else _beside(original.path)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: is not empty; give another directory")
    overrides = original.read_overrides()
    with locked(folder), Signals() as signals:
        _log_to(folder / "train.log")
        console.print(f"trains {original.path} again, in {folder}")
        if (threads := _threads(original)) is not None:
            _set_threads(threads, config)
        train_anywhere(config, folder, overrides, signals)
    return _tell(console, original, Run(folder))


def _recorded_config(original: Run) -> Config:
    original.require()
    original.finished_result()
    if not original.last_checkpoint.is_file():
        raise MissingDataError(
            f"{original.last_checkpoint}: does not exist, so there are no weights to compare with"
        )
    stored = read_config(original)
    stored["resume"] = None
    config = resolve_config(stored)
    found = dict(_found_devices(original))
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update=found)})
    as_launched(config)
    return config


def _found_devices(run: Run) -> Iterator[tuple[str, int]]:
    """Yield the devices that a launcher from outside had given, or that ``auto`` had found."""
    launched = run.read_provenance().get("launched")
    for key in ("devices", "num_nodes"):
        if isinstance(launched, dict) and isinstance(launched.get(key), int):
            yield key, launched[key]


def _set_threads(threads: int, config: Config) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # as torch reads it, in processes too
    if processes_to_start(config) == 1:
        with imports_kept():
            import torch

        torch.set_num_threads(threads)


def _threads(run: Run) -> int | None:
    try:
        threads = run.read_provenance().get("threads")
    except CorruptDataError:
        return None
    return threads if isinstance(threads, int) and threads > 0 else None


def _tell(console: Console, original: Run, again: Run) -> bool:
    from convtrain.use.bits import compare_bits
    from convtrain.use.compare import provenance_pairs

    verdict = compare_bits(original.path, again.path)
    if verdict.is_same:
        console.print(f"the same bits: {', '.join(verdict.compared)}")
        return True
    console.print("not the same bits:")
    for line in verdict.differing:
        console.print(f"  {line}")
    for pair in provenance_pairs(original, again):
        if not pair.is_equal:
            line = f"  {pair.key} was {pair.first}, is {pair.second}"
            console.print(line)
    return False


def _beside(path: Path) -> Path:
    resolved = path.absolute()
    return resolved.with_name(f"{resolved.name}-rerun-{new_stamp()}")


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
