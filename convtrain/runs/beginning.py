"""What a training does first in its run's directory: find where to resume, say what it is."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from convtrain.config.resume import refuse_lowered
from convtrain.config.schema import Config
from convtrain.errors import CorruptDataError
from convtrain.runs.directory import Run
from convtrain.runs.provenance import collect_provenance
from convtrain.training.checkpoint_file import load_checkpoint, newest_good
from convtrain.training.loggers import MetricsCsv, TensorBoard, tensorboard_of
from convtrain.training.position import saved_position

log = logging.getLogger("convtrain")


def checkpoint_to_resume(config: Config, run: Run) -> str | None:
    """Return the checkpoint to resume from; None where the run has not saved one yet."""
    if not run.is_resumable:
        rank_zero_only(log.warning)(
            "%s: was ended before its first checkpoint, so it begins again from its own "
            "configuration", run.path,
        )  # fmt: skip
        return None
    path, damaged = newest_good(run.checkpoints)
    if damaged:
        rank_zero_only(log.warning)("%s; going on from %s", "; ".join(damaged), path.name)
    saved = load_checkpoint(path, map_location="meta")
    position = saved_position(saved)
    epochs = position.epoch + 1 if position is not None else saved.get("epoch", 0)
    refuse_lowered(config, epochs=epochs, steps=saved.get("global_step", 0))
    return str(path)


@rank_zero_only
def begin(
    asked: Config,
    config: Config,
    run: Run,
    overrides: Sequence[str],
    trainer: pl.Trainer,
    *,
    resumes: bool,
) -> None:
    """Write down what is trained, and what the launcher made of it."""
    device = str(trainer.strategy.root_device)
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(0)})"
    launched = {
        "devices": trainer.num_devices,
        "num_nodes": trainer.num_nodes,
        "strategy": config.trainer.strategy,
    }
    if resumes:
        _tell_other_devices(run, launched)
    provenance = collect_provenance(seed=config.seed, device=device)
    run.begin(asked, overrides, {**provenance, "launched": launched})
    if resumes:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard | MetricsCsv):
            logger.forget_after(-1)  # another training in the same directory
    if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
        tensorboard.log_text("config", run.config.read_text())


def _tell_other_devices(run: Run, launched: dict[str, Any]) -> None:
    """Say so where a run goes on with another number of devices, and so to other last bits."""
    with suppress(CorruptDataError):
        before = run.read_provenance().get("launched")
        if isinstance(before, dict) and before != launched:
            were, are = (", ".join(f"{k}={v}" for k, v in x.items()) for x in (before, launched))
            log.warning(
                "%s: was trained with %s, goes on with %s; see docs/resume.md", run.path, were, are
            )
