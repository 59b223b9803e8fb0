"""Compose a command's configurations, and tell which file or override set a key."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.choices import find_choices, shown_path
from convtrain.command.command_line import CommandLine
from convtrain.command.hydra_errors import culprit_of, explain
from convtrain.command.loader import GuardedLoader, make_loader
from convtrain.command.overrides import (
    Chosen,
    is_choice,
    one_value_each,
    parse_override,
)
from convtrain.command.plugins import change_plugins
from convtrain.config.dotted import ABSENT, is_below, value_at
from convtrain.config.mistakes import TYPED
from convtrain.config.yaml_limits import refuse_explosions
from convtrain.errors import ConfigError
from convtrain.run.commands import CONFIGS

LAST_WORD = ("debug", "experiment")  # groups that change keys of other groups, strongest first


@dataclass(frozen=True)
class Composed:
    """A composed configuration, and the origin of its keys."""

    whole: DictConfig  # with Hydra's own node
    config: DictConfig  # without it
    choices: dict[str, object]  # by group
    overrides: list[Override]  # typed, and from hydra.sweeper.params
    folders: list[Path]  # searched for files
    loader: GuardedLoader  # composed it, and may compose more

    @property
    def hydra(self) -> DictConfig:
        node: DictConfig = self.whole.hydra
        return node

    def origin(self, key: str) -> str:
        """Return what set a key: the command line, or a file."""
        for override in self.overrides:
            typed, choice = override.key_or_group, self.choices.get(override.key_or_group)
            chooses = choice is not None and choice == override.value()
            if is_below(typed, key) or (is_below(key, typed) and not chooses):
                return TYPED
        for strong in LAST_WORD:
            if (file := self._setting(strong, self.choices.get(strong), key)) is not None:
                return shown_path(file)
        group, _, inside = key.partition(".")
        choice = self.choices.get(group)
        if (chosen := self._file(group, choice)) is not None:
            return shown_path(self._setting(group, choice, inside) or chosen)
        primary = self._file("", str(self.hydra.job.config_name).removesuffix(".yaml"))
        return shown_path(primary or CONFIGS / "train.yaml")

    def _setting(self, group: str, choice: object, key: str) -> Path | None:
        """Return the file that sets a key: that of a choice, or one in its defaults list."""
        if (file := self._file(group, choice)) is None:
            return None
        read = _read(file)
        if value_at(read, key) is not ABSENT:
            return file
        defaults = value_at(read, "defaults", None)
        names = defaults if isinstance(defaults, list) else []
        bases = (self._setting(group, name, key) for name in reversed(names) if name != choice)
        return next((base for base in bases if base is not None), None)

    def _file(self, group: str, choice: object) -> Path | None:
        candidates = [folder / group / f"{choice}.yaml" for folder in self.folders]
        return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def compose_command(command: CommandLine, mistakes: list[str] | None = None) -> Iterator[Composed]:
    """Yield the configuration that a command composes, or one for each value of a sweep.

    Unknown keys pass, so that the schema can report all mistakes together. ``mistakes`` gains a
    line for each override that cannot be applied, and the others are composed without it; if it is
    None, the lines are raised.

    Raises:
        ConfigError: a file cannot be read, or an override cannot be applied.
    """
    lines: list[str] = [] if mistakes is None else mistakes
    overrides = command.parsed(lines)
    refuse_explosions(command.folders)
    if command.multirun:
        change_plugins()
    loader = make_loader(command)
    searched = loader.searched(command.config_name, overrides)
    refuse_explosions(searched)
    folders = [*command.folders[:-1], *searched, command.config_dir]
    groups = {group: list(files) for group, files in find_choices(folders).items()}

    def compose_one(chosen: Chosen) -> Composed:
        whole = _compose(loader, command.config_name, chosen, folders, lines)
        choices = OmegaConf.to_container(whole.hydra.runtime.choices)
        assert isinstance(choices, dict)
        named = {str(group): choice for group, choice in choices.items()}
        config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        return Composed(whole, config, named, overrides, folders, loader)

    variants = list(one_value_each(overrides, command.multirun, groups, lines))
    if lines and mistakes is None:
        raise ConfigError(*lines)
    first = compose_one(variants[0])
    declared = _declared_sweeps(first.hydra, overrides, lines) if command.multirun else []
    if declared:
        overrides = [*declared, *overrides]
        variants = list(one_value_each(overrides, command.multirun, groups, lines))
        first = compose_one(variants[0])
    if lines and mistakes is None:
        raise ConfigError(*lines)
    yield first
    for chosen in variants[1:]:
        changed = [pair for pair in chosen if pair not in variants[0]]
        found = _with_value(first, *changed[0], groups) if changed else first
        yield found or compose_one(chosen)


def _declared_sweeps(
    hydra: DictConfig, typed: list[Override], mistakes: list[str]
) -> list[Override]:
    keys = {override.key_or_group for override in typed}
    declared = []
    for key, value in (hydra.sweeper.get("params") or {}).items():
        if (override := parse_override(f"{key}={value}")) is None:
            mistakes.append(f"hydra.sweeper.params.{key}={value}: cannot be read as {key}=VALUES")
        elif override.key_or_group not in keys:
            declared.append(override)
    return declared


def _with_value(
    first: Composed, override: Override, text: str, groups: dict[str, list[str]]
) -> Composed | None:
    """Replace the value of one key without composing again, which is slow.

    Return None if the value may change more: for the choice of a group, for a key with other
    overrides above or below it, for a key in no file, and for a key that Hydra's node interpolates.
    """
    key = override.key_or_group
    near = [o.key_or_group for o in first.overrides if o is not override]
    is_alone = not any(is_below(o, key) or is_below(key, o) for o in near)
    raw = str(OmegaConf.to_container(first.hydra, resolve=False))
    in_hydra = re.search(rf"\$\{{[^}}]*\b{re.escape(key.split('.')[0])}\b", raw) is not None
    if is_choice(override, text, groups) or not is_alone or in_hydra or key.startswith("hydra"):
        return None
    if OmegaConf.select(first.config, key, default=ABSENT) is ABSENT:
        return None
    parsed = parse_override(text)
    config = first.config.copy()
    try:
        OmegaConf.update(config, key, parsed.value() if parsed else None, merge=True)
    except OmegaConfBaseException:
        return None  # Hydra says what is wrong with it
    return replace(first, config=config)


def _compose(
    loader: GuardedLoader, name: str, chosen: Chosen, folders: list[Path], mistakes: list[str]
) -> DictConfig:
    while True:
        try:
            return loader.compose(name, [text for _, text in chosen])
        except ConfigError as error:
            raise ConfigError(*mistakes, *error.lines) from None
        # A broken file raises Hydra's own errors, YAML's or a TypeError.
        except Exception as error:
            culprit = culprit_of(error, [override for override, _ in chosen])
            mistakes.append(explain(error, culprit, folders))
            if culprit is None:
                raise ConfigError(*mistakes) from error
            chosen = [(override, text) for override, text in chosen if override is not culprit]
