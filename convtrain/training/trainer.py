"""Assemble Lightning's Trainer from flat settings."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy

from convtrain.errors import TrainingError
from convtrain.ranks import place
from convtrain.training.checkpoints import CheckpointFiles
from convtrain.training.devices import check_devices
from convtrain.training.profile import StageProfiler

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


class NotProfiled(PassThroughProfiler):
    """Not profiling, without a generator for each of the hundred actions of a step."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


NOTHING = nullcontext()


class Trainer(pl.Trainer):
    """Lightning's, which stops on every device where the first one cannot save."""

    def save_checkpoint(self, *args: Any, **options: Any) -> None:
        failed: str | None = None
        try:
            super().save_checkpoint(*args, **options)
        except TrainingError as error:  # of the first device alone; the others wait for it
            failed = str(error)
            self.strategy.barrier("Trainer.save_checkpoint")
        failed = self.strategy.broadcast(failed)
        if failed is not None:
            raise TrainingError(failed)


def make_trainer(
    *,
    run_dir: Path,
    accelerator: str,
    devices: int | str,
    strategy: str,
    threads: int | None,
    profiler: str | None,
    max_steps: int | None,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    **settings: Any,
) -> Trainer:
    """Make the trainer; further settings are ``pytorch_lightning.Trainer``'s own.

    Raises:
        ConfigError: the machine lacks the devices asked for.
    """
    check_devices(accelerator, devices, strategy)
    if threads is not None:
        torch.set_num_threads(threads)
    made = _make_profiler(profiler, run_dir)
    if isinstance(made, StageProfiler):
        callbacks = [*callbacks, made.layers]
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=_make_strategy(strategy),
        max_steps=-1 if max_steps is None else max_steps,
        callbacks=list(callbacks),
        logger=list(loggers),
        profiler=made,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        plugins=[CheckpointFiles(), *_environment()],
        use_distributed_sampler=False,
        **settings,
    )


def _make_strategy(name: str) -> str | Strategy:
    """Return Lightning's name of a strategy, or what takes settings of its own."""
    if name != "fsdp":
        return name
    # Weights and gradients are DTensors, and a checkpoint is one file, as with one device.
    # Lightning would divide them over as many processes as there are machines.
    rank_info = place()
    return ModelParallelStrategy(
        data_parallel_size=1 if rank_info is None else rank_info.world_size,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _environment() -> list[Any]:
    """Return, as plugins, who tells each process its place."""
    here = place()
    if here is not None:
        return [SLURMEnvironment(auto_requeue=False) if here.starter == "srun"
                else TorchElasticEnvironment()]  # fmt: skip
    # A batch script's own process is not one of those that SLURM would start.
    return [LightningEnvironment()] if "SLURM_NTASKS" in os.environ else []


def kind_of_device(accelerator: str) -> Literal["cpu", "gpu", "mps"]:
    """Return what ``trainer.accelerator`` comes to on this machine."""
    if accelerator in ("gpu", "auto") and torch.cuda.is_available():
        return "gpu"
    if accelerator in ("mps", "auto") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def make_early_stopping(
    *, monitor: str, mode: str, patience: int | None, min_delta: float
) -> list[EarlyStopping]:
    """Make the callback that ends a training which no longer improves, if patience is limited."""
    if patience is None:
        return []
    return [EarlyStopping(monitor=monitor, mode=mode, patience=patience, min_delta=min_delta)]


def _make_profiler(name: str | None, run_dir: Path) -> Profiler:
    if name is None:
        return NotProfiled()
    if name == "stages":
        return StageProfiler(run_dir)
    return PROFILERS[name](dirpath=run_dir, filename="profile")
