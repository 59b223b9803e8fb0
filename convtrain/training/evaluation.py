"""What a training and its test have measured, and the predictions, as files of the run."""

import json
from collections.abc import Iterable
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl

from convtrain.config.monitors import measured_names
from convtrain.config.schema import Config
from convtrain.data.module import ImageData
from convtrain.process.atomic import atomic_write, write_atomically
from convtrain.run.directory import LAST, TEST, Run
from convtrain.run.evaluation import Evaluation
from convtrain.run.result import Metrics, Result, metrics_in
from convtrain.run.strict_json import to_json
from convtrain.training.callbacks.prediction_rows import PredictionRows
from convtrain.training.callbacks.stopping import why_early
from convtrain.training.chosen_metrics import plain
from convtrain.training.log_entries import LogEntries
from convtrain.training.loggers.metrics_csv import COLUMNS
from convtrain.training.task import Task

DESCRIBED = ("name", "run_id", "checkpoint", "data", "source", "split", "tta")
"""Keys of an evaluation that the predictions' file has in its schema's metadata as well."""


def measured(entries: LogEntries, names: Iterable[str]) -> Metrics:
    """Return the newest metrics as a result has them; ``names`` are those of the chosen ones."""
    names = list(names)
    numbers = {name: entries.newest[name] for name in names if name in entries.newest}
    arrays = {name: plain(entries.arrays[name]) for name in names if name in entries.arrays}
    return cast(Metrics, {**metrics_in(entries.newest), **numbers, **arrays})


def make_result(
    config: Config,
    task: Task,
    trainer: pl.Trainer,
    times: tuple[float, float, float, float],
    *,
    waited: float,
    recorded: float,
    tested: str | None,
    split: str,
) -> Result:
    """Return the result of a training and its test, without its diagnosis.

    Args:
        times: on ``time.perf_counter``, when the assembly began, when the training began, when the
            test began, and when it ended.
        waited: seconds in which the training waited for batches.
        recorded: seconds in which the recorder worked.
        tested: the checkpoint that was tested, if it is not the last one.
        split: the split that was tested.
    """
    entries, names = task.entries, measured_names(config.metrics)
    started, ready, trained, ended = times
    result: Result = {
        **measured(entries, names),
        "images_per_second": entries.images / max(entries.seconds, 1e-9),
        "data_share_of_time": min(waited / max(entries.seconds, 1e-9), 1.0),
        "callback_metrics": {
            k: v for k, v in entries.newest.items() if k not in (*COLUMNS, *names)
        },
        "steps": trainer.global_step,
        "epochs": task.progress.epochs,
        "stopped_early": why_early(trainer, task.progress.epochs),
        "wall_time_seconds": ended - started,
        "seconds": {
            "start": ready - started, "train": entries.seconds, "data": waited,
            "recorder": recorded, "val": entries.validation_seconds, "test": ended - trained,
        },
        "tested_checkpoint": tested,
        "tested_split": split,
        "parameters": sum(p.numel() for p in task.model.parameters()),
    }  # fmt: skip
    if config.trainer.ema is not None:
        result["ema"] = config.trainer.ema
    return result


def predictions_of(trainer: pl.Trainer) -> PredictionRows | None:
    """Return the callback that has collected the predictions of a test, if there is one."""
    found = (each for each in trainer.callbacks if isinstance(each, PredictionRows))  # type: ignore[attr-defined]
    return next(found, None)


def keep_test(config: Config, run: Run, task: Task, data: ImageData, tested: str | None) -> None:
    """Write the evaluation of a run's end; ``tested`` is the checkpoint, None for the last."""
    found = predictions_of(task.trainer)
    if found is None or not task.trainer.is_global_zero:
        return
    names = data.splits.classes or config.data.class_names
    metrics = measured(task.entries, measured_names(config.metrics))
    if tested is None and run.last_checkpoint.is_file():
        tested = LAST
    evaluation = Evaluation(
        name=TEST,
        run_id=task.resuming.run_id,
        checkpoint=tested,
        data=config.data.name,
        source=config.data.source,
        split=data.splits.tested,
        images=found.images,
        left_out=0,
        tta=None,
        multi_label=data.is_multi_label,
        metrics={name: value for name, value in metrics.items() if name.startswith("test/")},
        class_names=list(names),
        classes={"matched": list(names), "unknown": [], "missing": []},
    )
    write_evaluation(run, evaluation, found.table)


def write_evaluation(run: Run, evaluation: Evaluation, rows: pa.Table) -> None:
    """Write an evaluation, and the predictions if there are any; the JSON file comes last.

    Raises:
        TrainingError: the disk is full or cannot be written to.
    """
    name = evaluation["name"]
    if rows.num_rows:
        described = {key: str(evaluation[key]) for key in DESCRIBED if evaluation[key] is not None}  # type: ignore[literal-required]
        described["class_names"] = json.dumps(evaluation["class_names"])
        content = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata(described), content, compression="lz4")
        with atomic_write(run.predictions(name)) as writer:
            writer.write(content.getvalue())
    else:
        run.predictions(name).unlink(missing_ok=True)
    write_atomically(run.evaluation(name), to_json(evaluation))
