"""The whole story of a run on one page: ``train(config) -> result``."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from convtrain.assembly import (
    MODEL_KEYS,
    make_callbacks,
    make_data,
    make_loggers,
    make_model,
    make_recorder,
    make_task,
)
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, ConvtrainError, TrainingError, error_line
from convtrain.gradients.diagnosis.offline import diagnose
from convtrain.process.atomic import line_on_full_disk
from convtrain.process.ranks import as_launched
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import EVALUATED, Result, metric_of, metrics_in
from convtrain.training.beginning import begin, checkpoint_to_resume
from convtrain.training.callbacks.checkpoints import BestCheckpoints, LastCheckpoint
from convtrain.training.callbacks.interrupts import Interrupts
from convtrain.training.callbacks.rank_consistency import SameEverywhere, data_fingerprint
from convtrain.training.callbacks.stopping import why_early
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.loggers.metrics_csv import COLUMNS
from convtrain.training.loggers.newest import Newest
from convtrain.training.loggers.tensorboard import tensorboard_of
from convtrain.training.sharding import load_weights
from convtrain.training.small_batches import check_smallest_batch
from convtrain.training.task import Task
from convtrain.training.trainer import make_trainer

log = logging.getLogger("convtrain")


def train(
    config: Config, run_dir: Path, overrides: Sequence[str] = (), signals: Signals | None = None
) -> Result:
    """Train in this process and return the result, which is ``run_dir/result.json`` as well.

    The caller has locked the directory (:func:`convtrain.launch.start.train`).

    Args:
        config: the validated configuration, as it was asked for.
        run_dir: where everything the run leaves behind goes.
        overrides: what was typed on the command line, for the record.
        signals: that end the run where it can be resumed.

    Raises:
        ConvtrainError: one line on what a user can mend.
        Interrupted: a signal has ended the run, which is saved.
    """
    if not _alone.acquire(blocking=False):
        raise ConfigError(
            f"{run_dir}: another training runs in this process, and both would draw from the same "
            f"random numbers; wait until it has ended, or train in another process"
        )
    try:
        return _train(config, Run(run_dir), overrides, signals)
    finally:
        _alone.release()


_alone = threading.Lock()  # torch's random state and number of threads are the process's


def _train(asked: Config, run: Run, overrides: Sequence[str], signals: Signals | None) -> Result:
    started = time.perf_counter()
    config, run_dir = as_launched(asked), run.path
    pl.seed_everything(config.seed, verbose=False)

    data = make_data(config)
    fingerprint = data_fingerprint(data.splits)
    model = make_model(config)
    check_smallest_batch(config, data, model)
    task = make_task(config, model)
    recorder = make_recorder(config, run_dir)
    callbacks = make_callbacks(config, run, data) + ([recorder] if recorder else [])
    callbacks.append(SameEverywhere(asked, fingerprint, run_dir))
    if signals is not None:
        last = next((each for each in callbacks if isinstance(each, LastCheckpoint)), None)
        callbacks.append(Interrupts(signals, last))
    trainer = make_trainer(
        run_dir=run_dir,
        callbacks=callbacks,
        loggers=[*make_loggers(config, run_dir), Newest(task.entries.newest)],
        **config.trainer.model_dump(exclude=MODEL_KEYS),
    )
    checkpoint = checkpoint_to_resume(config, run, fingerprint) if config.resume else None
    resumes = checkpoint is not None
    task.resuming.run_id = begin(
        asked, config, run, overrides, trainer, data=fingerprint, resumes=resumes
    )

    tested = None
    with _failures_told(task, run_dir):
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        data_seconds = getattr(trainer.train_dataloader, "seconds", 0.0)
        if config.trainer.limit_test_batches != 0:
            tested = _load_for_test(config, task, trainer)
            trainer.test(task, datamodule=data, verbose=False)

    entries, epochs = task.entries, task.progress.epochs
    result: Result = {
        **metrics_in(entries.newest),
        "images_per_second": entries.images / max(entries.seconds, 1e-9),
        "data_share_of_time": min(data_seconds / max(entries.seconds, 1e-9), 1.0),
        "callback_metrics": {k: v for k, v in entries.newest.items() if k not in COLUMNS},
        "steps": trainer.global_step,
        "epochs": epochs,
        "stopped_early": why_early(trainer, callbacks, epochs),
        "wall_time_seconds": time.perf_counter() - started,
        "tested_checkpoint": tested,
        "tested_split": data.splits.tested,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if recorder is not None:
        share, size = recorder.overhead_share, recorder.bytes_written
        result["recorder"] = {"share_of_time": share, "bytes": size}
    _end(config, run, trainer, result)
    if recorder is not None:
        _diagnose_gradients(run, result)
    return result


@contextmanager
def _failures_told(task: Task, run_dir: Path) -> Iterator[None]:
    """Turn whatever is raised, in a user's own code too, into one line that says where."""
    try:
        yield
    except ConvtrainError:
        raise
    except (Exception, SystemExit) as error:  # a callback that leaves has not finished the run
        full = line_on_full_disk(error, run_dir)
        raise TrainingError(full or f"{task.progress.where()}: {error_line(error)}") from error


def _load_for_test(config: Config, task: Task, trainer: pl.Trainer) -> str | None:
    """Load the weights that the test shall see; return the checkpoint's name."""
    keeper = trainer.checkpoint_callback
    if config.callbacks.checkpoint.test_with == "last" or not isinstance(keeper, BestCheckpoints):
        return None
    if not keeper.best_model_path:
        log.warning(
            "callbacks.checkpoint.test_with=best: no best checkpoint was kept, so the last weights "
            "are tested"
        )
        return None
    trainer.strategy.barrier()
    path = Path(keeper.best_model_path)
    load_weights(task, load_checkpoint(path)["state_dict"])
    return path.name


@rank_zero_only
def _end(config: Config, run: Run, trainer: pl.Trainer, result: Result) -> None:
    if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
        final = {
            name: value for name in EVALUATED if (value := metric_of(result, name)) is not None
        }
        tensorboard.log_results(_settings(config), final, trainer.global_step)
    for logger in trainer.loggers:
        logger.finalize("finished")
    run.finish(result)


@rank_zero_only
def _diagnose_gradients(run: Run, result: Result) -> None:
    """Add the verdict to the result of a run that is finished, and stays so if this is killed."""
    result["gradients"] = diagnose(run.path)
    run.finish(result)


def _settings(config: Config) -> dict[str, Any]:
    """Return what the HPARAMS page shows: the settings that people compare."""
    settings = {
        "model": config.model.style,
        "network": config.model_name,
        "data": config.data.name,
        "batch_size": config.data.batch_size,
        "max_epochs": config.trainer.max_epochs,
        "precision": config.trainer.precision,
        "seed": config.seed,
        "loss": config.loss.name,
    }
    for group in ("optimizer", "scheduler", "augment"):
        for key, value in getattr(config, group).model_dump().items():
            settings[group if key == "name" else f"{group}.{key}"] = value
    return settings
