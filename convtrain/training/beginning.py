"""What a training does first in its run's directory: find where to resume, say what it is."""

import logging
import uuid
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from convtrain.command.resume import refuse_lowered
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import RUN_ID, newest_good
from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.loggers.tensorboard import TensorBoard, tensorboard_of
from convtrain.training.position import saved_position
from convtrain.training.provenance import collect_provenance

log = logging.getLogger("convtrain")


def checkpoint_to_resume(config: Config, run: Run, data: str) -> str | None:
    """Return the checkpoint to resume from; None where the run has not saved one yet.

    Args:
        config: as it resumes.
        run: the run.
        data: the fingerprint of the data that are here.

    Raises:
        CorruptDataError: none of its checkpoints can be used.
        ConfigError: a limit is below what is done already, or the data have changed.
    """
    if not run.is_resumable:
        rank_zero_only(log.warning)(
            "%s: was ended before its first checkpoint, so it begins again from its own "
            "configuration", run.path,
        )  # fmt: skip
        return None
    before = _known(run)
    found = newest_good(run.checkpoints, before.get(RUN_ID))
    if found.damaged:
        passed_over = "; ".join(found.damaged)
        rank_zero_only(log.warning)("%s; going on from %s", passed_over, found.path.name)
    position = saved_position(found.content)
    epochs = position.epoch + 1 if position is not None else found.content["epoch"]
    refuse_lowered(config, epochs=epochs, steps=found.content["global_step"])
    if before.get("data", data) != data and not config.data.allow_change:
        raise ConfigError(
            f"data.root={config.data.root}: the images, their classes or their splits are not "
            f"those that {run.path} was trained on; bring them back, or type "
            f"data.allow_change=true to go on with these"
        )
    return str(found.path)


@rank_zero_only
def begin(
    asked: Config,
    config: Config,
    run: Run,
    overrides: Sequence[str],
    trainer: pl.Trainer,
    *,
    data: str,
    resumes: bool,
) -> str:
    """Write down what is trained, and what the launcher made of it; return the run's id.

    Args:
        asked: the configuration as it was asked for.
        config: as it was launched.
        run: where to write.
        overrides: what was typed.
        trainer: about to train.
        data: the fingerprint of the data.
        resumes: whether the run goes on from a checkpoint.
    """
    device = str(trainer.strategy.root_device)
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(0)})"
    launched = {
        "devices": trainer.num_devices,
        "num_nodes": trainer.num_nodes,
        "strategy": config.trainer.strategy,
    }
    before = _known(run) if resumes else {}
    if (were := before.get("launched", launched)) != launched:
        log.warning(
            "%s: was trained with %s and resumes with %s; the last bits will differ, see "
            "docs/resume.md",
            run.path,
            _listed(were),
            _listed(launched),
        )
    run_id = str(before.get(RUN_ID) or uuid.uuid4().hex)
    provenance = collect_provenance(seed=config.seed, device=device)
    more = {RUN_ID: run_id, "data": data, "launched": launched}
    run.begin(asked, overrides, {**provenance, **more})
    if resumes:
        return run_id
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard | MetricsCsv):
            logger.forget_after(-1)  # another training in the same directory
    if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
        tensorboard.log_text("config", run.config.read_text())
    return run_id


def _known(run: Run) -> dict[str, Any]:
    """Return where a run comes from, as far as that can be read."""
    try:
        return run.read_provenance()
    except CorruptDataError as error:
        rank_zero_only(log.warning)("%s; data, devices and checkpoints are not compared", error)
        return {}


def _listed(launched: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in dict(launched).items())
