"""Repeat a training step from ``gradients/nonfinite-STEP.pt``, in any process."""

from pathlib import Path

import torch

from convtrain.assembly import make_model, make_task
from convtrain.command.job_config import config_of
from convtrain.gradients.diagnosis.replay import Replay, digest_of, replay_saved
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.parts import named_parameters
from convtrain.training.precision import make_precision


def reproduce(path: Path | str) -> Replay:
    """Repeat a step whose gradients were not finite, from its file and the run's configuration.

    The file holds the step's input, weights, buffers and seeds, so the dataset is not needed. On
    the same machine with the same versions, the step has the same bits.

    Raises:
        MissingDataError: the file or the run's ``config.yaml`` does not exist.
        CorruptDataError: the file is damaged.
        ConfigError: the configuration is not valid any more.
    """
    saved = load_checkpoint(path)
    config = config_of(Run(Path(path).resolve().parents[1]), reads_data=False)
    precision = make_precision(saved["precision"], "cpu")
    task = make_task(config, make_model(config))
    precision.convert_module(task)
    before = torch.get_num_threads()
    torch.set_num_threads(saved["threads"])
    try:
        with torch.no_grad():
            for name, parameter in named_parameters(task.parts):
                parameter.copy_(saved["weights"][name])
        found = replay_saved(task.train(), saved, precision.train_step_context)
    finally:
        torch.set_num_threads(before)
    found.is_same = digest_of(found.gradients) == saved["digest"]
    return found
