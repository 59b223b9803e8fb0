"""A run from its configuration to its result: :func:`assemble` its parts, then :func:`train`."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from convtrain.assembly import (
    make_callbacks,
    make_data,
    make_loggers,
    make_model,
    make_recorder,
    make_task,
)
from convtrain.config.schema import Config
from convtrain.config.targets import check_targets
from convtrain.data.images import Splits
from convtrain.data.module import ImageData
from convtrain.errors import ConfigError, ConvtrainError, TrainingError, error_line
from convtrain.gradients.diagnosis.offline import diagnose
from convtrain.gradients.record.recorder import Recorder
from convtrain.process.atomic import line_on_full_disk
from convtrain.process.ranks import as_launched
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.training.beginning import begin, checkpoint_to_resume, logged_before
from convtrain.training.callbacks.checkpoints import load_best_weights
from convtrain.training.callbacks.interrupts import Interrupts
from convtrain.training.callbacks.rank_consistency import SameEverywhere, data_fingerprint
from convtrain.training.evaluation import keep_test, make_result
from convtrain.training.loggers.custom import end, make_custom_loggers
from convtrain.training.loggers.numbers import Newest
from convtrain.training.loggers.tensorboard import tensorboard_of
from convtrain.training.objectives import check_loss_targets, class_weights_of, make_metrics
from convtrain.training.small_batches import check_smallest_batch
from convtrain.training.starting_weights import Loaded, read_starting_weights
from convtrain.training.task import Task
from convtrain.training.trainer import Trainer, make_trainer

_one_training = threading.Lock()  # torch's random state and thread count belong to the process


@dataclass(frozen=True)
class Assembled:
    """A run that is ready to train."""

    asked: Config  # as requested
    config: Config  # with the devices and the strategy that were launched
    run: Run
    data: ImageData
    task: Task
    trainer: Trainer
    recorder: Recorder | None
    fingerprint: str  # a hash of the data
    weights: Loaded | None  # what the model begins with
    started: float  # when the assembly began, on time.perf_counter


def assemble(
    config: Config,
    run_dir: Path,
    *,
    splits: Splits | None = None,
    callbacks: Sequence[pl.Callback] = (),
    signals: Signals | None = None,
) -> Assembled:
    """Make everything that a run consists of; nothing is written yet.

    Args:
        splits: train on these images instead of the configured dataset.
        callbacks: are called before the configured ones.
        signals: end the run at the next place from which it can be resumed.

    Raises:
        ConvtrainError: the data, the model or the devices cannot be used.
    """
    started, run = time.perf_counter(), Run(run_dir)
    asked, config = config, as_launched(config)
    check_targets(config)
    pl.seed_everything(config.seed, verbose=False)

    model = make_model(config)  # before the data is read, which may take long
    weights = read_starting_weights(config, model, run)
    data = make_data(config, splits)
    loaded = weights and weights.load(model, config, data.splits.classes)
    fingerprint = data_fingerprint(data.splits)
    check_smallest_batch(config, data, model)
    check_loss_targets(config, multi_label=data.is_multi_label)
    task = make_task(
        config, model, multi_label=data.is_multi_label, metrics=make_metrics(config, data),
        class_weights=class_weights_of(config, data),
    )  # fmt: skip
    recorder = make_recorder(config, run.path)
    used = [*callbacks, *make_callbacks(config, run, data), *([recorder] if recorder else [])]
    used.append(SameEverywhere(asked, fingerprint, run.path, loaded and loaded["sha256"]))
    if signals is not None:
        used.append(Interrupts(signals))
    custom = make_custom_loggers(config.logger.targets, run.path, logged_before(config, run))
    loggers = [*make_loggers(config, run.path), *custom.values(), Newest(task.entries.newest)]
    task.resuming.loggers = custom
    trainer = make_trainer(config.trainer, run_dir=run.path, callbacks=used, loggers=loggers)
    return Assembled(
        asked, config, run, data, task, trainer, recorder, fingerprint, loaded, started
    )


def train(
    config: Config, run_dir: Path, overrides: Sequence[str] = (), signals: Signals | None = None
) -> Result:
    """Assemble and train a run in this process; the caller has locked its directory.

    Raises:
        Interrupted: a signal has ended the run, which is saved.
    """
    if not _one_training.acquire(blocking=False):
        raise ConfigError(
            f"{run_dir}: another training runs in this process, and both would draw from the same "
            f"random numbers; wait until it has ended, or train in another process"
        )
    try:
        return train_assembled(assemble(config, run_dir, signals=signals), overrides)
    finally:
        _one_training.release()


def train_assembled(parts: Assembled, overrides: Sequence[str] = ()) -> Result:
    """Train, test and diagnose an assembled run; return what is in its ``result.json``."""
    config, run, task, trainer = parts.config, parts.run, parts.task, parts.trainer
    found = checkpoint_to_resume(config, run, parts.fingerprint) if config.resume else None
    task.resuming.run_id = begin(
        parts.asked, config, run, overrides, trainer, data=parts.fingerprint, resumes=bool(found),
        classes=parts.data.splits.classes, multi_label=parts.data.is_multi_label,
        class_weights=class_weights_of(config, parts.data), custom=task.resuming.loggers,
        weights=parts.weights, frozen=task.frozen.numbers(),
    )  # fmt: skip
    trainer.checkpoint_files.found = found
    tested, ready = None, time.perf_counter()
    try:
        path = str(found.path) if found else None
        trainer.fit(task, datamodule=parts.data, ckpt_path=path, weights_only=True)
        data_seconds = getattr(trainer.train_dataloader, "seconds", 0.0)
        trained = time.perf_counter()
        if config.trainer.limit_test_batches != 0:
            if config.callbacks.checkpoint.test_with == "best":
                tested = load_best_weights(trainer)
            trainer.test(task, datamodule=parts.data, verbose=False)
            keep_test(config, run, task, parts.data, tested)
    except ConvtrainError:
        raise
    except (Exception, SystemExit) as error:  # a callback that exits has not finished the run
        full = line_on_full_disk(error, run.path)
        raise TrainingError(full or f"{task.progress.where()}: {error_line(error)}") from error
    finally:
        end(task.resuming.loggers)
        parts.data.close()

    result = make_result(
        config, task, trainer, (parts.started, ready, trained, time.perf_counter()),
        waited=data_seconds, recorded=parts.recorder.overhead.seconds if parts.recorder else 0.0,
        tested=tested, split=parts.data.splits.tested,
    )  # fmt: skip
    if (recorder := parts.recorder) is not None:
        share, size = recorder.overhead_share, recorder.bytes_written
        result["recorder"] = {"share_of_time": share, "bytes": size}
    _finish(parts, result)
    return result


@rank_zero_only
def _finish(parts: Assembled, result: Result) -> None:
    run, trainer = parts.run, parts.trainer
    if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
        tensorboard.log_run(parts.config, result, trainer.global_step)
    for logger in trainer.loggers:
        logger.finalize("finished")
    run.finish(result)
    if "recorder" in result:  # the run is finished even if the process is killed here
        result["gradients"] = diagnose(run.path)
        run.finish(result)
    if parts.config.callbacks.report:
        from convtrain.report.ending import write_at_end  # jinja2 takes 20 ms to import

        write_at_end(run, parts.asked, parts.data.splits.test)
