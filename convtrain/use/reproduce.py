"""Doing a step again that left ``gradients/nonfinite-STEP.pt``, in whatever process."""

from pathlib import Path

import pytorch_lightning as pl
import torch

from convtrain.assembly import make_model, make_task
from convtrain.command.job_config import resolve_config
from convtrain.command.resume import read_config
from convtrain.gradients.diagnosis.replay import Replay, digest_of, replay_saved
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint


def reproduce(path: Path | str) -> Replay:
    """Do the step again whose gradients were not finite, from the file and its run's config.

    The dataset is not needed: the file holds the images as the network saw them, beside weights,
    buffers and seeds. What it computes is the same bits on the same machine with the same versions.

    Args:
        path: such as ``RUN/gradients/nonfinite-000000000005.pt``.

    Returns:
        the layer that the first value that is not finite comes from, the losses, and the gradients.

    Raises:
        MissingDataError: there is no such file, or no ``config.yaml`` in its run's directory.
        CorruptDataError: the file is damaged.
        ConfigError: the configuration is not valid any more.
    """
    saved = load_checkpoint(path)
    stored = read_config(Run(Path(path).resolve().parents[1]))
    stored["resume"] = None
    config = resolve_config(stored)
    trainer = pl.Trainer(
        accelerator="cpu", precision=saved["precision"], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    task = make_task(config, make_model(config))
    trainer.precision_plugin.convert_module(task)
    before = torch.get_num_threads()
    torch.set_num_threads(saved["threads"])
    try:
        with torch.no_grad():
            for name, parameter in task.model.named_parameters():
                parameter.copy_(saved["weights"][name])
        found = replay_saved(task.train(), saved, trainer.precision_plugin.train_step_context)
    finally:
        torch.set_num_threads(before)
    found.is_same = digest_of(found.gradients) == saved["digest"]
    return found
