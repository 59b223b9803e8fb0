"""Training a run again from its own record, to see whether the bits are the same."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from convtrain.config.check import resolve_config
from convtrain.config.names import new_stamp
from convtrain.config.resume import read_config
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, MissingDataError
from convtrain.imports import imports_kept
from convtrain.launcher import processes_to_start, quiet_libraries, train_in_processes
from convtrain.ranks import as_launched
from convtrain.runs.directory import RunDirectory
from convtrain.runs.lock import locked
from convtrain.signals import Signals


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
    original = RunDirectory(run_dir)
    config = _recorded_config(original)
    folder = Path(out) if out is not None else _beside(original.path)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: is not empty; give another directory")
    overrides = original.read_overrides()
    with locked(folder), Signals() as signals:
        _log_to(folder / "train.log")
        console.print(f"trains {original.path} again, in {folder}")
        _train(config, folder, overrides, signals, _threads(original))
    return _tell(console, original, RunDirectory(folder))


def _recorded_config(original: RunDirectory) -> Config:
    if not original.config.is_file():
        raise MissingDataError(f"{original.path}: no run; give a directory that holds config.yaml")
    original.finished_result()
    stored = read_config(original.config)
    stored["resume"] = None
    return as_launched(resolve_config(stored))


def _train(
    config: Config, folder: Path, overrides: list[str], signals: Signals, threads: int | None
) -> dict[str, Any]:
    count = processes_to_start(config)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # as torch reads it, here and in processes
    if count > 1:
        return train_in_processes(count, config, folder, overrides, signals)
    with imports_kept():
        quiet_libraries()
        import torch

        from convtrain.pipeline import train

    if threads is not None:
        torch.set_num_threads(threads)
    return train(config, folder, overrides, signals)


def _threads(run: RunDirectory) -> int | None:
    try:
        threads = json.loads(run.provenance.read_text())["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) and threads > 0 else None


def _tell(console: Console, original: RunDirectory, again: RunDirectory) -> bool:
    from convtrain.runs.bits import compare_bits
    from convtrain.runs.compare import provenance_pairs

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
