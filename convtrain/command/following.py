"""What the weights that a training begins with say about its data: normalisation and size.

A key of ``data`` follows the weights unless the user typed it, or a YAML file gives it another
value than convtrain's own file for the dataset. ``config.yaml`` of the run has the final value.
"""

from collections.abc import Iterable, Mapping
from typing import cast

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from convtrain.command.overrides import parse_override
from convtrain.command.resolve import to_plain
from convtrain.config.data_sections import AnySizes
from convtrain.config.mistakes import Mistake
from convtrain.config.schema import Config
from convtrain.config.section import imported
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.run.commands import CONFIGS
from convtrain.run.starting_weights import Source, source_of

NORMALISATION = ("mean", "std")
SIZE = ("shape", "store_size", "eval_crop", "interpolation")  # of images of any size
LIBRARIES = {
    "torchvision": "convtrain.models.published:expected_pixels",
    "timm": "convtrain.models.timm_models:expected_pixels",
}
"""What a library's weights expect; only a training that begins with them imports torch so early."""

Pixels = Mapping[str, object]
"""Key of ``data`` to its value."""


def follow_weights(composed: DictConfig, kept: Iterable[str]) -> list[Mistake]:
    """Set the keys of ``data`` that follow from ``model.weights``, except the ``kept`` ones.

    Returns:
        What is wrong with ``model.weights``. Other mistakes are left for the validation.
    """
    if not _has_weights(composed):
        return []
    try:
        config = Config.model_validate(to_plain(composed)[0])
        source = source_of(config)
    except (ValidationError, ConfigError) as error:
        is_ours = isinstance(error, ConfigError) and str(error).startswith("model.weights")
        return [Mistake("", str(error))] if is_ours else []
    if source is None:
        return []
    try:
        expected = expected_pixels(source)
    except (ConfigError, CorruptDataError) as error:
        return [Mistake("", str(source.refused(error)))]
    for key, value in followed(config, expected, kept).items():
        OmegaConf.update(composed, f"data.{key}", value, merge=False, force_add=True)
    return []


def expected_pixels(source: Source) -> Pixels:
    """Return the values of ``data`` with which weights were trained; empty if they are not known.

    Raises:
        ConfigError: the library publishes no such weights, or the run cannot be read.
    """
    if source.run is not None:
        data = source.run.read_config().get("data")
        known = data if isinstance(data, dict) else {}
        lists = (*NORMALISATION, "shape")
        return {
            key: known[key]
            for key in (*NORMALISATION, *SIZE)
            if key in known and isinstance(known[key], list) == (key in lists)
        }
    if source.library is None:
        return {}
    return cast(Pixels, imported(LIBRARIES[source.library])(source.model, source.weights))


def followed(config: Config, expected: Pixels, kept: Iterable[str] = ()) -> dict[str, object]:
    """Return the values of ``data`` that follow from the weights, without the ``kept`` keys.

    ``store_size`` and ``eval_crop`` follow only if height and width are those of the weights.
    """
    data, kept = config.data, set(kept)
    found: dict[str, object] = {}
    if isinstance(data, AnySizes):
        found = {key: expected[key] for key in SIZE if key in expected and key not in kept}
        shape = cast(list[int], found.get("shape", data.shape))
        if shape[1:] != cast(list[int], expected.get("shape", []))[1:]:
            for key in ("store_size", "eval_crop") if "store_size" not in kept else ():
                found.pop(key, None)
    channels = cast(list[int], found.get("shape", data.shape))[0]
    for key in NORMALISATION:
        values = cast(list[float], expected.get(key, []))
        if channels == 1 and len(values) > 1:
            values = [sum(values) / len(values)]
        if len(values) == channels and key not in kept:
            found[key] = values
    return found


def set_by_user(composed: DictConfig, typed: Iterable[str]) -> set[str]:
    """Return the keys of ``data`` that do not follow ``model.weights``, if it is set.

    They are those that the user has set, and the shape if the images determine it.

    Args:
        typed: the overrides of the command.
    """
    if not _has_weights(composed) or not isinstance(composed.get("data"), DictConfig):
        return set()
    overrides = [found for text in typed if (found := parse_override(text)) is not None]
    keys = {override.key_or_group.removeprefix("data.") for override in overrides}
    data = cast(dict[str, object], OmegaConf.to_container(composed.data, resolve=False))
    shipped = _shipped(str(data.get("kind", data.get("name"))))
    changed = {key for key, value in data.items() if key in shipped and value != shipped[key]}
    added = {key for key in (*NORMALISATION, *SIZE) if key in data and key not in shipped}
    own_size = {"shape"} if data.get("shape") is None else set()  # the images determine it
    return keys | changed | added | own_size


def _has_weights(composed: DictConfig) -> bool:
    found = OmegaConf.select(composed, "model.weights", throw_on_resolution_failure=False)
    return bool(found)


def _shipped(name: str) -> dict[str, object]:
    """Return the keys of convtrain's own file for a dataset, with those of its defaults list."""
    file = CONFIGS / "data" / f"{name}.yaml"
    if not file.is_file():
        return {}
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    bases = [_shipped(base) for base in read.get("defaults", []) if base != "_self_"]
    return {key: value for keys in (*bases, read) for key, value in keys.items()}
