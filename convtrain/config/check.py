"""From a composed configuration to a typed one, or to one line for every mistake in it."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from convtrain.config.agreement import disagreements
from convtrain.config.command_line import CommandLine
from convtrain.config.compose import Composed, compose_leniently
from convtrain.config.folders import class_names
from convtrain.config.hydra_node import hydra_mistakes
from convtrain.config.messages import MISSING, UNKNOWN, Mistake, Origin, line, mistakes_in
from convtrain.config.plain import to_plain
from convtrain.config.resume import stored_config
from convtrain.config.schema import Config
from convtrain.config.sweep import sweep_arguments
from convtrain.config.targets import target_mistakes, trust_mistakes
from convtrain.errors import ConfigError, ConvtrainError, MissingDataError


def check_command_line(arguments: Sequence[str]) -> list[str]:
    """Check everything a command asks for before anything runs; exit with status 2 if it is wrong.

    Returns:
        The arguments as Hydra shall see them: with a ``++`` before keys that no file has, and with
        the directory of a sweep.
    """
    try:
        command = CommandLine.parse(arguments)
        checked = check_command(command) if command.trains else None
        forced = checked.forced if checked else []
        more = checked.sweep_arguments() if checked and command.multirun else []
    except ConfigError as error:
        print_error(error)
        sys.exit(error.exit_status)
    kept = [text for text in arguments if not (more and text.startswith("hydra.sweep.dir="))]
    return [f"++{text}" if text in forced else text for text in kept] + more


class Checked(NamedTuple):
    """A command that is right.

    Attributes:
        configs: one for each value of a sweep.
        forced: the overrides that must be forced.
        composed: the first of what was composed.
    """

    configs: list[Config]
    forced: list[str]
    composed: Composed

    def sweep_arguments(self) -> list[str]:
        return sweep_arguments(self.configs, self.composed.hydra, self.composed.overrides)


def check_command(command: CommandLine) -> Checked:
    """Check every configuration that a command asks for.

    In a sweep every value is checked, so that the last job cannot fail over a typing mistake.

    Raises:
        ConfigError: one line for each mistake.
    """
    first: Composed | None = None
    configs: list[Config] = []
    forced: list[str] = []
    lines: list[str] = []
    for composed in compose_leniently(command, lines):
        first = first or composed
        try:
            configs.append(resolve_config(composed.config, command.overrides, composed.origin))
        except ConfigError as error:
            lines += error.lines
        raw = {"hydra": OmegaConf.to_container(composed.hydra)}
        trust, resume = composed.config.get("trust"), composed.config.get("resume")
        for mistake in hydra_mistakes(composed.hydra, trust, command.overrides):
            if mistake.key != "hydra.run.dir" or not resume:  # which is then the run's directory
                lines.append(line(mistake, raw, composed.origin))
        if not lines:
            forced += composed.added()
    if lines:
        raise ConfigError(*dict.fromkeys(lines))
    assert first is not None
    return Checked(configs, forced, first)


def print_error(error: ConvtrainError) -> None:
    """Show an error's lines, after its traceback where ``HYDRA_FULL_ERROR=1`` asks for it."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    else:
        print(error, file=sys.stderr)


def resolve_config(
    composed: DictConfig, overrides: Sequence[str] = (), origin: Origin | None = None
) -> Config:
    """Resolve interpolations, fill in what the data's folders tell, and validate.

    Args:
        composed: what Hydra composed, without its ``hydra`` node. Where it names a run to resume,
            that run's own configuration takes its place.
        overrides: what was typed on the command line.
        origin: tells what set a key; shown behind each mistake.

    Raises:
        ConfigError: one line for each mistake.
    """
    resume = composed.get("resume")
    if resume:
        composed = stored_config(str(resume), overrides)
        origin = _origin_of_resumed(f"{resume}/config.yaml", origin)
    composed = composed.copy()
    OmegaConf.set_readonly(composed, False)
    OmegaConf.set_struct(composed, False)
    folder = _read_image_folder(composed)
    plain, unresolved = to_plain(composed)
    return validate(plain, origin, [*folder, *unresolved])


def validate(
    plain: dict[str, Any], origin: Origin | None = None, found: Sequence[Mistake] = ()
) -> Config:
    """Validate plain containers: each key against the schema, and keys against one another.

    Args:
        plain: the configuration.
        origin: tells what set a key.
        found: mistakes that are known already.

    Raises:
        ConfigError: one line for each mistake: key, value, what is allowed, what set it.
    """
    mistakes = list(found)
    try:
        config = Config.model_validate(plain)
        sections = {name: getattr(config, name) for name in Config.model_fields}
    except ValidationError as error:
        wrong = mistakes_in(error, plain)
        keys = [mistake.key for mistake in wrong]
        mistakes = [m for m in found if m.text != MISSING or m.key not in keys]
        known = [f"{mistake.key}." for mistake in mistakes]
        mistakes += [m for m in wrong if not any(key.startswith(f"{m.key}.") for key in known)]
        sections = _valid_sections(plain, [m.key for m in wrong if m.text.startswith(UNKNOWN)])
    mistakes += disagreements(sections)
    mistakes += trust_mistakes(plain.get("trust"))
    mistakes += target_mistakes(plain, plain.get("trust"))
    if mistakes:
        raise ConfigError(*dict.fromkeys(line(mistake, plain, origin) for mistake in mistakes))
    return config


def _valid_sections(plain: dict[str, Any], unknown: Sequence[str]) -> dict[str, Any]:
    """Return those sections that are right by themselves, but for keys that nobody knows."""
    sections = {}
    for name, kind in get_type_hints(Config, include_extras=True).items():
        value = plain.get(name)
        if isinstance(value, dict):
            value = {key: v for key, v in value.items() if f"{name}.{key}" not in unknown}
        with contextlib.suppress(ValidationError):
            sections[name] = TypeAdapter(kind).validate_python(value, strict=True)
    return sections


def _origin_of_resumed(file: str, origin: Origin | None) -> Origin:
    """Return the origin of the keys of a run that is resumed: its own file, or what was typed."""

    def origin_of(key: str) -> str:
        typed = origin is not None and origin(key) == "command line"
        return "command line" if typed else file

    return origin_of


def _read_image_folder(composed: DictConfig) -> list[Mistake]:
    """Fill in the classes of an image folder; return what is wrong with it."""
    data = composed.get("data")
    try:
        is_folder = isinstance(data, DictConfig) and data.get("name") == "image_folder"
        if not is_folder or data.get("classes") is not None or not isinstance(data.root, str):
            return []
        data.classes = class_names(Path(data.root))
        if data.get("num_classes") is None:
            data.num_classes = len(data.classes)
    except OmegaConfBaseException:
        return []  # an interpolation that is reported with the others
    except MissingDataError as error:
        return [Mistake("", str(error))]
    return []
