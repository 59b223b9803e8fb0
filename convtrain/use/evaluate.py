"""Evaluate the model of a run, on the run's own data or on other data."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from convtrain.assembly import make_data, make_model, make_task
from convtrain.command.evaluated_data import evaluated_config
from convtrain.command.job_config import config_of
from convtrain.config.groups.trainer import Trainer as Chosen
from convtrain.config.monitors import measured_names
from convtrain.config.schema import Config
from convtrain.config.targets import check_targets
from convtrain.data.batches import Batches
from convtrain.data.module import ImageData
from convtrain.data.reading import own_randomness
from convtrain.errors import ConfigError, ConvtrainError, TrainingError, error_line
from convtrain.process.signals import Signals
from convtrain.report.tested import store_mistakes
from convtrain.run.directory import TEST, Run
from convtrain.run.evaluation import Classes, Evaluation
from convtrain.training.callbacks.interrupts import Interrupts
from convtrain.training.callbacks.prediction_rows import PredictionRows
from convtrain.training.callbacks.progress_bar import EvaluationProgress
from convtrain.training.callbacks.rank_consistency import OTHER_DATA, data_fingerprint
from convtrain.training.checkpoint_file import RUN_ID
from convtrain.training.devices import kind_of_device
from convtrain.training.evaluation import measured, write_evaluation
from convtrain.training.objectives import check_loss_targets, make_metrics
from convtrain.training.saved_weights import LOSS, find_checkpoint, load_weights, read_weights
from convtrain.training.task import Task
from convtrain.training.trainer import make_trainer
from convtrain.use.as_on_devices import DividedBatches, SumsByDevice, devices_of
from convtrain.use.class_matching import Divided, match_classes, relabel
from convtrain.use.evaluation_arguments import ALL, FLIP, check_arguments, default_name
from convtrain.use.load import class_names, class_weights
from convtrain.use.threads import threads_of
from convtrain.use.undivided import is_undivided, read_undivided

log = logging.getLogger("convtrain")


def evaluate(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    checkpoint: Path | str | None = None,
    split: str = "test",
    tta: str | None = None,
    name: str | None = None,
    device: str = "auto",
    signals: Signals | None = None,
) -> Evaluation:
    """Evaluate a run's model; return what is in ``RUN/evaluations/NAME.json`` then.

    Without overrides, the data is that of the run, and on the same machine the metrics are those of
    its ``result.json`` to the last bit. Where several devices have divided its batches, that holds
    for loss, accuracy and what is counted; other metrics may add up in another order. The
    predictions are beside the JSON file, as ``NAME.parquet``.

    Classes of other data are matched by their names. Images of classes that the model does not know
    cannot be right: no metric counts them, and their predictions have no target.

    Example::

        found = convtrain.evaluate("logs/runs/lenet/RUN", ["data.root=photographs"])
        print(found["metrics"]["test/acc"], found["classes"]["unknown"])

    Args:
        run: the run's directory, finished or not.
        overrides: of ``data``, as for a training: ``data.root=FOLDER``, ``data=mnist``. The shape,
            mean and std are those of the training.
        checkpoint: as for :func:`convtrain.load`; None is the one that the run was tested with.
        split: ``test``; ``val``; ``train``, which is evaluated without augmentation; or ``all``
            images of the data, however few, as if they were not divided.
        tta: ``flip`` averages the logits of each image and of its mirror image.
        name: of the files; by default it follows from the other arguments.
        device: ``cpu``, ``cuda``, or ``auto``: the kind that the run has trained on, if it is here.
        signals: end the evaluation after a batch.

    Raises:
        ConfigError: an argument is wrong, or no class of the data is one of the model's.
        MissingDataError: there is no such run, checkpoint or data.
        CorruptDataError: the checkpoint or an image is damaged.
        TrainingError: the model fails, or the disk is full.
    """
    here = Run(run)
    here.require()
    check_arguments(here, overrides, checkpoint, split=split, tta=tta, name=name, device=device)
    name = name or default_name(overrides, checkpoint, split, tta)
    stored = config_of(here, reads_data=False)
    trainer = _alone(stored.trainer, split, device, is_own=not overrides)
    config = stored.model_copy(update={"trainer": trainer})
    other = evaluated_config(here, overrides).model_copy(update={"trainer": trainer})
    check_targets(other)
    if overrides and split == TEST and is_undivided(other.data):
        log.warning(
            "%s: has no test split, so a part of it is the test as in a training; --split %s "
            "takes all images", other.data.source, ALL,
        )  # fmt: skip
    path = find_checkpoint(here, checkpoint)
    names = class_names(here, config)
    if other.data.classes:
        match_classes(names, other.data.classes, other.data.source)  # before the images are read
    with _as_in_training(config.seed, None if overrides else threads_of(here)):
        try:
            model = make_model(config)  # before the images are read, which may take long
            data, divided, classes = _read(other, split, names)
            if not overrides and split != ALL:
                _warn_of_other_data(here, data, other.data.source)
            task = _make_task(here, config, model, data, path, tta)
            devices = 1 if overrides else devices_of(here)
            images, rows = _test(here, config, task, data, divided, devices, signals)
        except ConvtrainError:
            raise
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            raise TrainingError(f"{path}: cannot be evaluated: {error_line(error)}") from error
    metrics = measured(task.entries, measured_names(config.metrics))
    found = Evaluation(
        name=name,
        run_id=here.read_provenance().get(RUN_ID),
        checkpoint=path.name,
        data=other.data.name,
        source=other.data.source,
        split=data.splits.tested if split == TEST else split,
        images=images,
        left_out=len(divided.unknown_at),
        tta=tta,
        multi_label=data.is_multi_label,
        metrics={key.replace(TEST, split, 1): value for key, value in metrics.items()},
        class_names=names,
        classes=classes,
    )
    write_evaluation(here, found, rows)
    if name == TEST:
        store_mistakes(here, data.splits.test)  # for the page of the run
    return found


def _alone(chosen: Chosen, split: str, device: str, *, is_own: bool) -> Chosen:
    """Return the trainer's section for a test in this process.

    On its own data, a run that was trained on a part of the batches is tested on that part.
    """
    limits = {"test": chosen.limit_test_batches, "val": chosen.limit_val_batches}
    kind = {"cpu": "cpu", "cuda": "gpu"}.get(device) or kind_of_device(chosen.accelerator)
    changed = {
        "accelerator": kind, "devices": 1, "num_nodes": 1, "strategy": "auto",
        "sync_batchnorm": False, "profiler": None,
        "limit_test_batches": (is_own and limits.get(split)) or 1.0,
        "fast_dev_run": False,
    }  # fmt: skip
    return chosen.model_copy(update=changed)


@contextmanager
def _as_in_training(seed: int, threads: int | None) -> Iterator[None]:
    """Use the run's seed and threads inside the block; parts of a model may draw numbers."""
    before = torch.get_num_threads()
    with own_randomness(seed):
        try:
            pl.seed_everything(seed, verbose=False)
            torch.set_num_threads(threads or before)
            yield
        finally:
            torch.set_num_threads(before)


def _read(other: Config, split: str, names: Sequence[str]) -> tuple[ImageData, Divided, Classes]:
    """Read the data; its test images are those of the split whose classes the model knows."""
    data = make_data(other, read_undivided(other.data) if split == ALL else None)
    theirs, source = data.splits.classes or other.data.class_names, other.data.source
    classes = match_classes(names, theirs, source)
    images = getattr(data.splits, TEST if split == ALL else split)
    divided = relabel(images, names, theirs, classes, source)
    data.splits = replace(data.splits, test=divided.known)
    return data, divided, classes


def _warn_of_other_data(run: Run, data: ImageData, source: str) -> None:
    """Warn if the run's own data has changed: images move between splits if some are added."""
    before, now = run.read_provenance().get("data"), data_fingerprint(data.splits)
    if before not in (None, now):
        log.warning(
            "%s: %s, so that it may have learnt from images that are evaluated here", source,
            OTHER_DATA.format(run.path),
        )  # fmt: skip


def _make_task(
    run: Run, config: Config, model: nn.Module, data: ImageData, path: Path, tta: str | None
) -> Task:
    """Make the task as for a training, with the weights of a checkpoint."""
    several = data.is_multi_label
    check_loss_targets(config, multi_label=several)
    if run.read_provenance().get("multi_label") and not several:
        raise ConfigError(
            f"{run.path}: predicts any number of labels, and the images to evaluate have one class "
            f"each; give data with the targets of the training"
        )
    task = make_task(
        config, model, multi_label=several, class_weights=class_weights(run, config),
        metrics=make_metrics(config, data),
    )  # fmt: skip
    if config.trainer.precision in (64, "64-true"):
        task.double()  # or the weights would be rounded
    load_weights(model, read_weights(path, run), path)
    if isinstance(task.loss, nn.Module) and task.loss.state_dict():
        load_weights(task.loss, read_weights(path, run, LOSS), path)
    if tta == FLIP:
        task.register_forward_hook(_average_with_mirror_image)
    return task


def _test(
    run: Run,
    config: Config,
    task: Task,
    data: ImageData,
    divided: Divided,
    devices: int,
    signals: Signals | None,
) -> tuple[int, pa.Table]:
    """Test on the known images, with batches that are divided as for so many devices.

    Returns:
        the number of known images, and the predictions of all.
    """
    collected = PredictionRows(classes=config.data.class_count, multi_label=data.is_multi_label)
    callbacks: list[Callback] = [collected, EvaluationProgress()]
    callbacks += [Interrupts(signals)] if signals is not None else []
    chosen, size = config.trainer, config.data.eval_batch_size
    limit = chosen.limit_test_batches  # in batches that are not divided
    if devices > 1:
        chosen = chosen.model_copy(update={"limit_test_batches": 1.0})
    trainer = make_trainer(chosen, run_dir=run.path, callbacks=callbacks, loggers=[])
    if devices == 1:
        trainer.test(task, datamodule=data, verbose=False)
    else:
        task.entries.running[TEST] = SumsByDevice(devices, multi_label=data.is_multi_label)
        known = divided.known.to(trainer.strategy.root_device)
        batches = DividedBatches(known, size, data.normalise, limit=limit, devices=devices)
        trainer.test(task, dataloaders=batches, verbose=False)
    images, rows = collected.images, _placed(collected.table, divided.known_at)
    if divided.unknown is not None:
        rest = Batches(divided.unknown, size, data.normalise)
        trainer.predict(task, dataloaders=rest, return_predictions=False)
        rows = pa.concat_tables([rows, _placed(collected.table, divided.unknown_at)])
    return images, rows.sort_by("index")


def _average_with_mirror_image(task: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    mirrored: Tensor = task.forward(inputs[0].flip(-1))
    return (logits + mirrored) / 2


def _placed(rows: pa.Table, places: Tensor) -> pa.Table:
    """Return the rows of some images of a split with their indices in the split."""
    index = pa.array(places.numpy()).take(rows["index"]).cast(pa.int32())
    return rows.set_column(0, "index", index)
