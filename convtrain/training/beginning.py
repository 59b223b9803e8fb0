"""Before the training: find the checkpoint to resume from, and record the run's provenance."""

import logging
import uuid
from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from convtrain.command.resume import refuse_lowered
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, few
from convtrain.run.directory import Run
from convtrain.training.callbacks.rank_consistency import OTHER_DATA
from convtrain.training.checkpoint_file import RUN_ID, Found, newest_good
from convtrain.training.loggers.custom import Custom, start
from convtrain.training.loggers.tensorboard import tensorboard_of
from convtrain.training.position import saved_position
from convtrain.training.provenance import collect_provenance
from convtrain.training.resuming import file_loggers
from convtrain.training.starting_weights import WEIGHTS, Loaded

log = logging.getLogger("convtrain")

CLASS_WEIGHTS, LOGGERS = "class_weights", "loggers"  # keys of provenance.json


def checkpoint_to_resume(config: Config, run: Run, data: str) -> Found | None:
    """Return the checkpoint to resume from; None if the run has not saved one yet.

    Raises:
        CorruptDataError: no checkpoint can be used.
        ConfigError: a limit is below what is done already, or the fingerprint ``data`` changed.
    """
    if not run.is_resumable:
        rank_zero_only(log.warning)(
            "%s: ended before its first checkpoint, so it restarts from its own configuration",
            run.path,
        )
        return None
    before = _provenance_of(run)
    # With FSDP, each process reads its part of the file later, so the tensors are left out here.
    device = "meta" if config.trainer.strategy == "fsdp" else "cpu"
    found = newest_good(run.checkpoints, before.get(RUN_ID), map_location=device)
    if found.damaged:
        passed_over = "; ".join(found.damaged)
        rank_zero_only(log.warning)("%s; resuming from %s", passed_over, found.path.name)
    position = saved_position(found.content)
    epochs = position.epoch + 1 if position is not None else found.content["epoch"]
    refuse_lowered(config, epochs=epochs, steps=found.content["global_step"])
    if before.get("data", data) != data and not config.data.allow_change:
        raise ConfigError(
            f"{config.data.source}: {OTHER_DATA.format(run.path)}; bring them back, or type "
            f"data.allow_change=true to resume with these"
        )
    return found


@rank_zero_only
def begin(
    asked: Config,
    config: Config,
    run: Run,
    overrides: Sequence[str],
    trainer: pl.Trainer,
    *,
    data: str,
    classes: Sequence[str] | None,
    multi_label: bool,
    class_weights: Sequence[float] | None,
    custom: Custom,
    frozen: Mapping[str, int],
    resumes: bool,
    weights: Loaded | None = None,
) -> str:
    """Record configuration and provenance on rank 0; return the run's id.

    Args:
        asked: the configuration as requested, which is what the run records.
        config: the configuration with the devices and the strategy that were launched.
        data: the fingerprint of the data.
        classes: names that the dataset has and the configuration has not.
        multi_label: an image has any number of labels.
        class_weights: those that balance the data.
        custom: loggers that the configuration names by ``_target_``.
        weights: what the model began with; a run that is resumed has it in its provenance.
        frozen: the number of frozen weights, by how long they are frozen.
    """
    device = str(trainer.strategy.root_device)
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(0)})"
    launched = {
        "devices": trainer.num_devices,
        "num_nodes": trainer.num_nodes,
        "strategy": config.trainer.strategy,
    }

    def listed(settings: object) -> str:
        items = settings.items() if isinstance(settings, Mapping) else ()
        return ", ".join(f"{key}={value}" for key, value in items)

    before: Mapping[str, object] = _provenance_of(run) if resumes else {}
    if (previous := before.get("launched", launched)) != launched:
        log.warning(
            "%s: was trained with %s and resumes with %s; the last bits will differ, see "
            "docs/resume.md",
            run.path,
            listed(previous),
            listed(launched),
        )
    run_id = str(before.get(RUN_ID) or uuid.uuid4().hex)
    provenance = collect_provenance(seed=config.seed, device=device)
    provenance |= {RUN_ID: run_id, "data": data, "launched": launched}
    if classes is not None:
        provenance["classes"] = list(classes)
    if multi_label:
        provenance["multi_label"] = True
    if class_weights is not None:
        provenance[CLASS_WEIGHTS] = list(class_weights)
        names = classes or config.data.class_names
        each = (f"{name} {weight:.4g}" for name, weight in zip(names, class_weights, strict=True))
        log.info("loss.class_weights=balanced: %s", few(each, most=100))
    if (began_with := weights or before.get(WEIGHTS)) is not None:
        provenance[WEIGHTS] = began_with
    if frozen:
        provenance["frozen"] = dict(frozen)
    if custom:
        settings = asked.model_dump(by_alias=True)
        provenance[LOGGERS] = start(custom, settings, _versions_in(before))
    run.begin(asked, overrides, provenance)
    if resumes:
        return run_id
    for logger in file_loggers(trainer).values():
        logger.forget_after(-1)  # another training was in this directory before
    if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
        tensorboard.log_text("config", run.config.read_text())
    return run_id


def logged_before(config: Config, run: Run) -> Mapping[str, str]:
    """Return the versions of the custom loggers of the run that is resumed."""
    resumes = config.logger.targets and config.resume is not None and run.is_resumable
    return _versions_in(_provenance_of(run)) if resumes else {}


def _versions_in(provenance: Mapping[str, object]) -> Mapping[str, str]:
    found = provenance.get(LOGGERS)
    return found if isinstance(found, dict) else {}


def _provenance_of(run: Run) -> Mapping[str, object]:
    try:
        return run.read_provenance()
    except CorruptDataError as error:
        rank_zero_only(log.warning)("%s; data, devices and checkpoints are not compared", error)
        return {}
