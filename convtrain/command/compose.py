"""Hydra's side of the configuration: compose it, and say which file or override set a key."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.command_line import CONFIGS, CommandLine, parse_override
from convtrain.command.guard import FolderLoader
from convtrain.command.hydra_errors import culprit_of, explain
from convtrain.command.overrides import Chosen, choices_of, is_choice, let_through, one_value_each
from convtrain.command.plugins import change_plugins
from convtrain.config.messages import TYPED
from convtrain.config.yaml_limits import refuse_explosions
from convtrain.errors import ConfigError

LAST_WORD = ("debug", "experiment")  # groups that change keys of other groups, strongest first


@dataclass(frozen=True)
class Composed:
    """A composed configuration, and where its keys come from.

    Attributes:
        config: without Hydra's own node, which is ``hydra``.
        choices: the choice of each group.
        folders: where files are looked for.
        added: returns the overrides of keys that no file has, though the schema may know them;
            to be called before the next configuration is asked for.
    """

    config: DictConfig
    hydra: DictConfig
    choices: dict[str, Any]
    overrides: list[Override]
    folders: list[Path] = field(default_factory=lambda: [CONFIGS])
    added: Callable[[], list[str]] = list

    def origin(self, key: str) -> str:
        """Return what set ``key``: the command line, or a file."""
        for override in self.overrides:
            typed, choice = override.key_or_group, self.choices.get(override.key_or_group)
            chooses = choice is not None and choice == override.value()
            above = f"{key}.".startswith(f"{typed}.") and not chooses
            if key == typed or above or typed.startswith(f"{key}."):
                return TYPED
        for strong in LAST_WORD:
            file = self._file(strong)
            if file is not None and _mentions(file, key):
                return shown(file)
        group, _, inside = key.partition(".")
        file = self._file(group)
        if file is None:
            return "configs/train.yaml"
        base = file.with_name("_base.yaml")
        return shown(base if not _mentions(file, inside) and _mentions(base, inside) else file)

    def _file(self, group: str) -> Path | None:
        """Return the file that was chosen for a group."""
        candidates = [folder / group / f"{self.choices.get(group)}.yaml" for folder in self.folders]
        return next((path for path in candidates if path.is_file()), None)


def shown(file: Path) -> str:
    """Return a path as an error shows it: convtrain's own files from its folder on."""
    home = CONFIGS.parent
    return str(file.relative_to(home) if file.is_relative_to(home) else file)


def _mentions(path: Path, key: str) -> bool:
    try:
        node: Any = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return False
    for part in key.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return False
    return True


def compose_leniently(
    command: CommandLine, mistakes: list[str] | None = None
) -> Iterator[Composed]:
    """Compose what ``command`` asks for, once for each value of a sweep.

    Unknown keys are let through, so that the schema can report all mistakes together.

    Args:
        command: what was typed.
        mistakes: gains a line for each override that cannot be carried out, and the others are
            composed without it; where it is None, such a line is raised.

    Raises:
        ConfigError: a file cannot be read, or an override cannot be carried out.
    """
    lines: list[str] = [] if mistakes is None else mistakes
    overrides = command.parsed(lines)
    refuse_explosions(command.folders)
    if command.multirun:
        change_plugins()
    with initialize_config_dir(version_base="1.3", config_dir=str(command.config_dir)):
        loader = _look_in_folders_alone(command)
        folders = [*command.folders, *loader.searched(command.config_name, overrides)]
        refuse_explosions(folders[len(command.folders) :])
        groups = choices_of(folders)
        variants = list(one_value_each(overrides, command.multirun, groups, lines))
        if lines and mistakes is None:
            raise ConfigError(*lines)

        def compose_one(chosen: Chosen) -> Composed:
            composed, added = _compose(command.config_name, chosen, groups, folders, lines)
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            assert isinstance(choices, dict)
            named = {str(group): choice for group, choice in choices.items()}
            OmegaConf.set_struct(composed, False)
            config = composed.copy()
            config.pop("hydra")
            return Composed(config, composed.hydra, named, overrides, folders, added)

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
    """Return the overrides of ``hydra.sweeper.params``, which typed ones replace."""
    keys = {override.key_or_group for override in typed}
    declared = []
    for key, value in (hydra.sweeper.get("params") or {}).items():
        text = f"{key}={value}"
        if (override := parse_override(text)) is None:
            mistakes.append(f"hydra.sweeper.params.{key}={value}: cannot be read as {key}=VALUES")
        elif override.key_or_group not in keys:
            declared.append(override)
    return declared


def _with_value(
    first: Composed, override: Override, text: str, groups: dict[str, list[str]]
) -> Composed | None:
    """Return what is composed with another value of one key, without composing, which is slow.

    None where that may not be all that the value changes: a choice of a group, a key that others
    are typed below or above, one that no file has, and one that Hydra's node is made of.
    """
    key = override.key_or_group
    near = [o.key_or_group for o in first.overrides if o is not override]
    is_alone = not any(f"{o}.".startswith(f"{key}.") or f"{key}.".startswith(f"{o}.") for o in near)
    raw = str(OmegaConf.to_container(first.hydra, resolve=False))
    in_hydra = re.search(rf"\$\{{[^}}]*\b{re.escape(key.split('.')[0])}\b", raw) is not None
    if is_choice(override, text, groups) or not is_alone or in_hydra or key.startswith("hydra"):
        return None
    if OmegaConf.select(first.config, key, default=_ABSENT) is _ABSENT:
        return None
    parsed = parse_override(text)
    config = first.config.copy()
    try:
        OmegaConf.update(config, key, parsed.value() if parsed else None, merge=True)
    except OmegaConfBaseException:
        return None  # Hydra says what is wrong with it
    return replace(first, config=config, added=list)


def _look_in_folders_alone(command: CommandLine) -> FolderLoader:
    """Let Hydra look for files where its own command line would, and in no package."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    path = hydra.config_loader.get_search_path()
    if command.extra_dir:
        schema = SearchPathQuery(provider="schema")
        path.prepend("command-line", f"file://{command.extra_dir}", anchor=schema)
    hydra.config_loader = loader = FolderLoader(path)
    return loader


def _compose(
    name: str,
    chosen: Chosen,
    groups: dict[str, list[str]],
    folders: list[Path],
    mistakes: list[str],
) -> tuple[DictConfig, Callable[[], list[str]]]:
    """Compose with overrides of one value each; return also what tells which keys are new.

    An override that stands in the way is reported and left out.
    """
    force = False
    while True:
        texts = [let_through(o, text, groups) if force else text for o, text in chosen]
        try:
            composed = compose(name, texts, return_hydra_config=True)
        # Hydra raises whatever a broken file leads to: errors of its own, YAML's, TypeErrors.
        except Exception as error:
            if not force and isinstance(error, HydraException | OmegaConfBaseException):
                force = True
                continue
            culprit = culprit_of(error, [override for override, _ in chosen])
            mistakes.append(explain(error, culprit, folders))
            if culprit is None:
                raise ConfigError(*mistakes) from error
            chosen = [(override, text) for override, text in chosen if override is not culprit]
            continue
        break

    def added() -> list[str]:
        choices = [text for override, text in chosen if is_choice(override, text, groups)]
        files = compose(name, choices)
        return [
            override.input_line or ""
            for (override, text), used in zip(chosen, texts, strict=True)
            if used != text
            and OmegaConf.select(files, override.key_or_group, default=_ABSENT) is _ABSENT
        ]

    return composed, added if force else list


_ABSENT = object()
