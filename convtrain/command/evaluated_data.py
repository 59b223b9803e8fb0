"""The data of an evaluation: that of the run, or other data, typed as for a training."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.command.data_facts import HAVE_CLASSES
from convtrain.command.job_config import config_of, resolve_config
from convtrain.command.overrides import shown
from convtrain.command.resolvers import register_resolvers
from convtrain.command.resume import read_config
from convtrain.config.dotted import is_below
from convtrain.config.mistakes import TYPED
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, first_line
from convtrain.run.directory import Run

LEARNED = ("data.shape", "data.mean", "data.std")
"""What the model has learned with, so that other data gets it as well."""
LEARNED_OF_SIZES = ("data.store_size", "data.eval_crop", "data.interpolation")
"""The same for data whose images may have any size."""
OF_TRAINING = (
    "data.batch_size", "data.sampling", "data.drop_last", "data.overfit_batches",
    "data.allow_change",
)  # fmt: skip
PLACES = ("data.root", "data.name", "data.file", "data.label_column", "data.label_separator")
"""Keys that name other images or labels, whose classes are found anew."""


def evaluated_config(run: Run, arguments: Sequence[str] = ()) -> Config:
    """Return a run's configuration with the data to evaluate on.

    Other data than that of the run gets the shape and the normalisation of the training. It is
    judged by itself, because nothing is trained on it.

    Args:
        arguments: overrides of ``data``, and options that name folders of configs; without any, the
            data is that of the run.

    Raises:
        ConfigError: with one line for each mistake.
    """
    if not arguments:
        return config_of(run)
    register_resolvers()
    command = CommandLine.parse(arguments, "--checkpoint", "--split", "--tta", "--name", "--device")
    lines: list[str] = []
    typed = command.parsed(lines)
    keys = [override.key_or_group for override in typed]
    lines += [text for override in typed if (text := _refusal(override)) is not None]
    if command.multirun or not command.trains:
        lines.append("an evaluation takes overrides of data, and no options of Hydra")
    if lines:
        raise ConfigError(*lines)
    stored, chosen = read_config(run), None
    if "data" in keys:
        (chosen,) = compose_command(command)
        kept = [*LEARNED, "data.eval_batch_size"]
        if "resize" in chosen.config.data:
            kept += [key for key in LEARNED_OF_SIZES if OmegaConf.select(stored, key) is not None]
        learned = {key: OmegaConf.select(stored, key) for key in kept}
        stored.data = chosen.config.data
        for key, value in learned.items():
            if key not in keys:
                OmegaConf.update(stored, key, value)
        stored.trust = chosen.config.trust if "trust" in keys else stored.trust
    else:
        _update(stored, typed)
        found = stored.data.get("kind", stored.data.get("name")) in HAVE_CLASSES
        if found and any(key in PLACES for key in keys):
            for key in {"data.classes", "data.num_classes"}.difference(keys):
                OmegaConf.update(stored, key, None)
    stored.resume = None
    stored.data.batch_size = 1  # the data may have fewer images than a batch of the training
    stored.data.overfit_batches = None

    def origin(key: str) -> str:
        if any(is_below(key, each) for each in keys if each != "data"):
            return TYPED
        is_new = chosen is not None and key not in learned and is_below(key, "data")
        return chosen.origin(key) if chosen is not None and is_new else str(run.config)

    return resolve_config(stored, origin=origin, judged=("data",), is_new=False)


def _refusal(override: Override) -> str | None:
    """Return the line for an override that an evaluation cannot have."""
    key = override.key_or_group
    if key in LEARNED:
        return f"{shown(override)}: is that of the training, which the model expects; leave it out"
    if key == "data.batch_size":
        return f"{shown(override)}: is of the training; type data.eval_batch_size"
    if key in OF_TRAINING:
        return f"{shown(override)}: is of the training; leave it out"
    if not is_below(key, "data") and key != "trust":
        return (
            f"{shown(override)}: an evaluation changes the data alone; type data=CHOICE or "
            f"data.KEY=VALUE"
        )
    if override.is_delete():
        return f"{shown(override)}: an evaluation needs its data; leave it out"
    if override.is_sweep_override():
        return f"{shown(override)}: an evaluation takes one value; give one"
    return None


def _update(stored: DictConfig, typed: Sequence[Override]) -> None:
    for override in typed:
        try:
            OmegaConf.update(stored, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise ConfigError(f"{shown(override)}: {first_line(error)}") from error
