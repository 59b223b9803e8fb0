"""From a composed configuration to a typed one, or to one line for every mistake in it."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, TypeAdapter, ValidationError

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import Composed, compose_leniently
from convtrain.command.hydra_node import (
    check_hydra,
    trusted_by,
    with_late_values,
)
from convtrain.command.hydra_paths import folder_mistakes
from convtrain.command.interpolations import to_plain
from convtrain.command.job_logging import logging_mistakes
from convtrain.command.overrides import at_home
from convtrain.command.resume import stored_config, why_not_anew
from convtrain.command.sweep import sweep_arguments
from convtrain.config.folders import class_names
from convtrain.config.messages import MISSING, TYPED, Mistake, Origin, line, mistakes_in, section_of
from convtrain.config.rules import disagreements
from convtrain.config.schema import Config
from convtrain.config.trust import target_mistakes, trust_mistakes
from convtrain.errors import ConfigError, MissingDataError, first_line
from convtrain.process.lock import refusal, stays_locked
from convtrain.process.output import print_error
from convtrain.process.ranks import is_main_process
from convtrain.run.directory import Run
from convtrain.text import plain_as_omegaconf

PATHS = ("data.root", "data.cache_dir", "resume")


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
        more = checked.more if checked else []
    except ConfigError as error:
        print_error(error)
        sys.exit(error.exit_status)
    typed = command.arguments
    kept = [text for text in typed if not (more and text.startswith("hydra.sweep.dir="))]
    return [f"++{text}" if text in forced else text for text in kept] + more


class Checked(NamedTuple):
    """A command that is right.

    Attributes:
        configs: one for each value of a sweep.
        forced: the overrides that must be forced.
        composed: the first of what was composed.
        more: what Hydra must know of a sweep beyond what was typed.
    """

    configs: list[Config]
    forced: list[str]
    composed: Composed
    more: list[str]

    @property
    def config(self) -> Config:
        """The first of the configurations, which is the only one of a run."""
        return self.configs[0]


def check_command(command: CommandLine) -> Checked:
    """Check every configuration that a command asks for.

    In a sweep every value is checked, so that the last job cannot fail over a typing mistake.

    Raises:
        ConfigError: one line for each mistake.
    """
    first: Composed | None = None
    configs: list[Config] = []
    forced: list[str] = []
    unread: list[str] = []  # overrides that are left out, so that a default is in their place
    lines: list[str] = []
    for composed in compose_leniently(command, unread):
        first = first or composed
        try:
            configs.append(resolve_config(composed.config, command.overrides, composed.origin))
        except ConfigError as error:
            lines += error.lines
        if first is not composed and composed.hydra is first.hydra:
            continue  # nothing of it follows from the value
        lines += _hydra_lines(composed, command, is_alone=not lines)
        if not lines:
            forced += composed.added()
    lines = [*unread, *(text for text in lines if not _judges_a_default(text, unread))]
    if lines:
        raise ConfigError(*dict.fromkeys(lines))
    assert first is not None
    if not command.multirun:
        return Checked(configs, forced, first, [])
    shared = _shared(command, first)
    more = sweep_arguments(configs, first.hydra, first.overrides, shared)
    return Checked(configs, forced, first, more)


def _shared(command: CommandLine, composed: Composed) -> dict[str, Any]:
    """Return the configuration of a sweep without the keys that are swept."""
    fixed = [o.input_line or "" for o in composed.overrides if not o.is_sweep_override()]
    try:
        (without,) = compose_leniently(replace(command, overrides=fixed, multirun=False), [])
    except ConfigError:  # it is whole only with one of the swept choices
        return {"overrides": sorted(fixed)}
    plain = OmegaConf.to_container(without.config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _judges_a_default(text: str, unread: Sequence[str]) -> bool:
    """Tell whether a line is about what stands in the place of an override that is left out."""
    key, *above = (re.split(r"[=:]", t, maxsplit=1)[0].lstrip("+~") for t in (text, *unread))
    is_below = any(f"{key}.".startswith(f"{left_out}.") for left_out in above)
    return is_below and not text.endswith(f"[set in: {TYPED}]")


def _hydra_lines(composed: Composed, command: CommandLine, is_alone: bool) -> list[str]:
    """Return a line for each mistake in Hydra's node.

    Args:
        is_alone: whether no other mistake is known, so that what cannot be resolved is one itself.
    """
    try:
        resume = composed.config.get("resume")
        plain, mistakes, unresolved = check_hydra(composed.hydra, trusted_by(composed.config))
    except ConfigError as error:
        return list(error.lines)
    except OmegaConfBaseException:
        return []  # resume cannot be resolved, which is reported by itself
    mistakes += folder_mistakes(plain)
    if not mistakes and not unresolved:
        mistakes = list(logging_mistakes(plain))
    if not mistakes and is_alone:  # what was typed comes first, and others may follow from it
        typed = [mistake for mistake in unresolved if composed.origin(mistake.key) == TYPED]
        mistakes = typed or unresolved
    mode = plain.get("mode")
    if mode is not None and (mode == RunMode.MULTIRUN) != command.multirun:
        mistakes.append(Mistake("hydra.mode", "leave it out; -m makes a sweep, and nothing a run"))
    # A run that is resumed has its directory, and a job of a sweep has one in the sweep's.
    unused = {"hydra.run.dir"} if resume or command.multirun else set()
    unused |= set() if command.multirun else {"hydra.sweep.dir"}
    mistakes = [mistake for mistake in mistakes if mistake.key not in unused]
    if not command.multirun and is_main_process():  # which the other ranks find at work
        mistakes += _lost_run(composed.hydra, resume)
    shown = {"hydra": with_late_values({**plain, "mode": mode and mode.name})}
    return [line(mistake, shown, composed.origin) for mistake in mistakes]


def _lost_run(hydra: DictConfig, resume: Any) -> list[Mistake]:
    """Return the mistake of a run where another is under way, or has left its results."""
    with contextlib.suppress(OmegaConfBaseException, ValueError):
        run, key = Run(str(OmegaConf.select(hydra, "run.dir"))), "hydra.run.dir"
        if (who := stays_locked(run.path)) is not None:
            return [Mistake("resume" if resume else key, refusal(who))]
        if not resume and (reason := why_not_anew(run)) is not None:
            return [Mistake(key, reason)]
    return []


def resolve_config(
    composed: DictConfig,
    overrides: Sequence[str] = (),
    origin: Origin | None = None,
    cwd: Path | None = None,
) -> Config:
    """Resolve interpolations, fill in what the data's folders tell, and validate.

    Args:
        composed: what Hydra composed, without its ``hydra`` node. Where it names a run to resume,
            that run's own configuration takes its place.
        overrides: what was typed on the command line.
        origin: tells what set a key; shown behind each mistake.
        cwd: the folder that relative paths start from, if not the working directory.

    Raises:
        ConfigError: one line for each mistake.
    """
    if resume := _resumed(composed, origin):
        resume = str((cwd or Path()) / at_home(resume))
        composed = stored_config(resume, overrides)
        origin = _origin_of_resumed(str(Run(resume).config), origin)
    composed = composed.copy()
    OmegaConf.set_readonly(composed, False)
    OmegaConf.set_struct(composed, False)
    for key in PATHS:
        with contextlib.suppress(OmegaConfBaseException):  # reported with the others
            path = OmegaConf.select(composed, key)
            if isinstance(path, str) and path and (cwd or path.startswith("~")):
                OmegaConf.update(composed, key, str((cwd or Path()) / at_home(path)))
    folder = _fill_in_classes(composed)
    plain, unresolved = to_plain(composed)
    return validate(plain, origin, [*folder, *unresolved])


def _resumed(composed: DictConfig, origin: Origin | None) -> str | None:
    """Return the run that is to be resumed, if there is one."""
    try:
        resume = composed.get("resume")
    except OmegaConfBaseException as error:
        raise ConfigError(line(Mistake("resume", first_line(error)), {}, origin)) from error
    if resume and not isinstance(resume, str):
        value = OmegaConf.to_container(resume) if OmegaConf.is_config(resume) else resume
        wrong = Mistake("resume", "must be the directory of a run; type resume=RUN_DIRECTORY")
        raise ConfigError(line(wrong, {"resume": value}, origin))
    return resume


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
        sections = _right_parts(plain)
    mistakes += disagreements(sections)
    mistakes += trust_mistakes(plain.get("trust"))
    mistakes += target_mistakes(plain, plain.get("trust"))
    if mistakes:
        raise ConfigError(*dict.fromkeys(line(mistake, plain, origin) for mistake in mistakes))
    return config


def _right_parts(plain: dict[str, Any]) -> dict[str, Any]:
    """Return each section with those of its keys that are right; it lacks the others."""
    parts = {}
    for name, kind in get_type_hints(Config, include_extras=True).items():
        value = plain.get(name)
        try:
            parts[name] = TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError:
            section = section_of(kind, value)
            if section is not None and isinstance(value, dict):
                parts[name] = section.model_construct(**dict(_right_fields(section, value)))
    return parts


def _right_fields(section: type[BaseModel], values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, info in section.model_fields.items():
        with contextlib.suppress(ValidationError, KeyError):
            kind: Any = info.rebuild_annotation()
            yield name, TypeAdapter(kind).validate_python(values[info.alias or name], strict=True)


def _origin_of_resumed(file: str, origin: Origin | None) -> Origin:
    """Return the origin of the keys of a run that is resumed: its own file, or what was typed."""

    def origin_of(key: str) -> str:
        typed = origin is not None and origin(key) == TYPED
        return TYPED if typed else file

    return origin_of


def _fill_in_classes(composed: DictConfig) -> list[Mistake]:
    """Fill in the classes of an image folder, and their number; return what is wrong with it."""
    data = composed.get("data")
    if not isinstance(data, DictConfig):
        return []
    try:
        reads = data.get("name") == "image_folder" and data.get("classes") is None
        if reads and isinstance(data.root, str):
            data.classes = plain_as_omegaconf(class_names(Path(data.root)))
        counts = "num_classes" in data and data.num_classes is None
        if counts and OmegaConf.is_list(data.get("classes")):
            data.num_classes = len(data.classes)
    except OmegaConfBaseException:
        return []  # an interpolation that is reported with the others
    except MissingDataError as error:
        return [Mistake("", str(error))]
    return []
