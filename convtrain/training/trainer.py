"""Assemble Lightning's Trainer from flat settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from convtrain.errors import ConfigError

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def make_trainer(
    *,
    run_dir: Path,
    accelerator: str,
    devices: int | str,
    threads: int | None,
    profiler: str | None,
    max_steps: int | None,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    **settings: Any,
) -> pl.Trainer:
    """Make the trainer; further settings are ``pytorch_lightning.Trainer``'s own.

    Raises:
        ConfigError: the machine lacks the devices asked for.
    """
    check_devices(accelerator, devices)
    if threads is not None:
        torch.set_num_threads(threads)
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        max_steps=-1 if max_steps is None else max_steps,
        callbacks=list(callbacks),
        logger=list(loggers),
        profiler=_make_profiler(profiler, run_dir),
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        use_distributed_sampler=False,
        **settings,
    )


def check_devices(accelerator: str, devices: int | str) -> None:
    """Raise ConfigError, with what to type instead, unless the machine has the devices."""
    present = {
        "gpu": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if accelerator not in present:
        return
    found = present[accelerator]
    if found == 0:
        raise ConfigError(
            f"trainer.accelerator={accelerator}: this machine has no such device; type trainer=cpu"
        )
    if isinstance(devices, int) and devices > found:
        raise ConfigError(
            f"trainer.devices={devices}: this machine has {found}; type trainer.devices={found}"
        )


def make_checkpoint(
    folder: Path,
    *,
    monitor: str,
    mode: str,
    save_top_k: int,
    every_n_epochs: int,
    validates: bool,
) -> ModelCheckpoint:
    """Make the callback that keeps ``last.ckpt`` and the best checkpoints.

    Without validation there is nothing to tell the best by, and ``last.ckpt`` alone is kept.
    """
    return ModelCheckpoint(
        dirpath=folder,
        filename="best-epoch{epoch:03d}",
        auto_insert_metric_name=False,
        enable_version_counter=False,
        monitor=monitor if validates else None,
        mode=mode,
        save_top_k=save_top_k if validates else 0,
        save_last=True,
        every_n_epochs=every_n_epochs,
    )


def make_early_stopping(
    *, monitor: str, mode: str, patience: int | None, min_delta: float
) -> list[EarlyStopping]:
    """Make the callback that ends a training which no longer improves, if patience is limited."""
    if patience is None:
        return []
    return [EarlyStopping(monitor=monitor, mode=mode, patience=patience, min_delta=min_delta)]


def _make_profiler(name: str | None, run_dir: Path) -> Profiler | None:
    return None if name is None else PROFILERS[name](dirpath=run_dir, filename="profile")
