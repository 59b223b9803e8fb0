"""Assemble Lightning's Trainer from flat settings."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from pytorch_lightning.utilities import rank_zero_only

from convtrain.errors import TrainingError
from convtrain.process.joining import in_time
from convtrain.process.ranks import RankInfo, rank_info, settle_rank
from convtrain.training.callbacks.checkpoints import CheckpointFiles
from convtrain.training.devices import check_devices
from convtrain.training.loops import EpochLoop, FitLoop
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
    """Lightning's, which stops on every device where the first one cannot save.

    It validates after its last step as well.
    """

    checkpoint_files: CheckpointFiles

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        old = self.fit_loop
        self.fit_loop = FitLoop(self, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
        self.fit_loop.epoch_loop = EpochLoop(self, min_steps=old.min_steps, max_steps=old.max_steps)

    def save_checkpoint(
        self, filepath: Any, weights_only: bool | None = False, storage_options: Any = None
    ) -> None:
        failed: str | None = None
        try:
            super().save_checkpoint(filepath, weights_only, storage_options)
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
    files = CheckpointFiles()
    trainer = Trainer(
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
        plugins=[files, lightning_environment()],
        use_distributed_sampler=False,
        **settings,
    )
    trainer.checkpoint_files = files
    connect = trainer.strategy.setup_environment
    trainer.strategy.setup_environment = in_time(connect)  # type: ignore[method-assign]
    return trainer


def _make_strategy(name: str) -> str | Strategy:
    """Return Lightning's name of a strategy, or what takes settings of its own."""
    if name != "fsdp":
        return name
    # Weights and gradients are DTensors, and a checkpoint is one file, as with one device.
    # Lightning would divide them over as many processes as there are machines.
    return ModelParallelStrategy(
        data_parallel_size=rank_info().world_size,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


class Launched(ClusterEnvironment):
    """Tells Lightning which rank this process is, whoever has started it."""

    def __init__(self, here: RankInfo) -> None:
        self.here = here

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.here.address[0]

    @property
    def main_port(self) -> int:
        return self.here.address[1]

    @staticmethod
    def detect() -> bool:
        return rank_info().launcher is not None

    def world_size(self) -> int:
        return self.here.world_size

    def global_rank(self) -> int:
        return self.here.rank

    def local_rank(self) -> int:
        return self.here.local_rank

    def node_rank(self) -> int:
        return self.here.rank // self.here.local_world_size

    def set_world_size(self, size: int) -> None:
        """Leave it: the launcher decides."""

    def set_global_rank(self, rank: int) -> None:
        """Leave it: the launcher decides."""


def lightning_environment() -> ClusterEnvironment:
    """Return what tells Lightning this process's rank, which it would read from variables itself.

    Lightning keeps the rank in ``rank_zero_only`` as well, from the moment it is imported.
    """
    here = settle_rank()
    rank_zero_only.rank = here.rank  # type: ignore[attr-defined]
    return LightningEnvironment() if here.launcher is None else Launched(here)


def kind_of_device(accelerator: str) -> Literal["cpu", "gpu", "mps"]:
    """Return what ``trainer.accelerator`` comes to on this machine."""
    if accelerator in ("gpu", "auto") and torch.cuda.is_available():
        return "gpu"
    if accelerator in ("mps", "auto") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _make_profiler(name: str | None, run_dir: Path) -> Profiler:
    if name is None:
        return NotProfiled()
    if name == "stages":
        return StageProfiler(run_dir)
    return PROFILERS[name](dirpath=run_dir, filename="profile")
