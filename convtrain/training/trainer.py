"""Lightning's trainer and its loops, made from the configuration's ``trainer`` section."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from pytorch_lightning.utilities import rank_zero_only

from convtrain.config.groups import trainer as section
from convtrain.errors import TrainingError
from convtrain.process.joining import in_time
from convtrain.process.ranks import RankInfo, rank_info, settle_rank
from convtrain.training.callbacks.checkpoints import CheckpointFiles
from convtrain.training.devices import check_devices
from convtrain.training.position import is_last_step
from convtrain.training.profile import StageProfiler

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}

NOT_FOR_LIGHTNING = {
    "channels_last", "compile", "threads", "profiler", "strategy", "max_steps", "ema",
}  # fmt: skip
"""Keys of the section that Lightning's trainer does not know or takes in another form."""


class NotProfiled(PassThroughProfiler):
    """Does not profile. Lightning's own creates about 40 generators a step."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self.nothing


class EpochLoop(_TrainingEpochLoop):
    """Validates after ``trainer.max_steps`` as well, where Lightning ends without validation."""

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        due: bool = super()._should_check_val_fx(data_fetcher)
        return due or (self.trainer.enable_validation and is_last_step(self.trainer))


class FitLoop(_FitLoop):
    """Resumes a training whose steps are done but whose last validation was interrupted."""

    @property
    def done(self) -> bool:
        validation: Any = self.epoch_loop.val_loop.batch_progress.current
        epochs: Any = self.epoch_progress.current
        interrupted = self.restarting and validation.ready > validation.processed
        if interrupted and epochs.ready > epochs.processed and self.trainer.enable_validation:
            return False
        ended: bool = super().done
        return ended


class Trainer(pl.Trainer):
    """Validates after its last step, and ends every process if the first one cannot save."""

    def __init__(self, checkpoint_files: CheckpointFiles, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.checkpoint_files = checkpoint_files
        old = self.fit_loop
        self.fit_loop = FitLoop(self, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
        self.fit_loop.epoch_loop = EpochLoop(self, min_steps=old.min_steps, max_steps=old.max_steps)

    def save_checkpoint(
        self,
        filepath: str | Path,
        weights_only: bool | None = False,
        storage_options: object = None,
    ) -> None:
        failed: str | None = None
        try:
            super().save_checkpoint(filepath, weights_only, storage_options)
        except TrainingError as error:  # on rank 0 alone; the others wait at the barrier
            failed = str(error)
            self.strategy.barrier("Trainer.save_checkpoint")
        if (failed := self.strategy.broadcast(failed)) is not None:
            raise TrainingError(failed)


def make_trainer(
    chosen: section.Trainer,
    *,
    run_dir: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """Make the trainer and set the CPU threads; raise ConfigError if a device is missing."""
    check_devices(chosen.accelerator, chosen.devices, chosen.strategy)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    profiler, files = _make_profiler(chosen.profiler, run_dir), CheckpointFiles()
    if isinstance(profiler, StageProfiler):
        callbacks = [*callbacks, profiler.layers]
    trainer = Trainer(
        files,
        **chosen.model_dump(exclude=NOT_FOR_LIGHTNING),
        strategy=_make_strategy(chosen.strategy),
        max_steps=-1 if chosen.max_steps is None else chosen.max_steps,
        callbacks=list(callbacks),
        logger=list(loggers),
        profiler=profiler,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        plugins=[files, lightning_environment()],
        use_distributed_sampler=False,
    )
    connect = trainer.strategy.setup_environment
    trainer.strategy.setup_environment = in_time(connect)  # type: ignore[method-assign]
    return trainer


def _make_strategy(name: str) -> str | Strategy:
    if name != "fsdp":
        return name
    # By default Lightning would shard over as many processes as there are machines, and save a
    # checkpoint as several files.
    return ModelParallelStrategy(
        data_parallel_size=rank_info().world_size,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _make_profiler(name: str | None, run_dir: Path) -> Profiler:
    if name is None:
        return NotProfiled()
    if name == "stages":
        return StageProfiler(run_dir)
    return PROFILERS[name](dirpath=run_dir, filename="profile")


class Launched(ClusterEnvironment):
    """Gives Lightning this process's rank, whichever launcher started the process."""

    creates_processes_externally = True

    def __init__(self, here: RankInfo) -> None:
        self.here = here

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
        """Ignore it: the launcher has decided."""

    def set_global_rank(self, rank: int) -> None:
        """Ignore it: the launcher has decided."""


def lightning_environment() -> ClusterEnvironment:
    """Return the environment that gives Lightning this process's rank."""
    here = settle_rank()
    # Lightning reads environment variables for this when it is imported.
    rank_zero_only.rank = here.rank  # type: ignore[attr-defined]
    return LightningEnvironment() if here.launcher is None else Launched(here)
