"""Hydra's side of the configuration: compose it, and say which file or override set a key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.anchors import refuse_explosions
from convtrain.errors import ConfigError, did_you_mean

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LAST_WORD = ("debug", "experiment")  # groups that change keys of other groups, strongest first


@dataclass(frozen=True)
class CommandLine:
    """What was typed after ``train.py``, as Hydra reads it."""

    overrides: list[str] = field(default_factory=list)
    config_dir: Path = CONFIGS
    config_name: str = "train"
    extra_dir: Path | None = None
    multirun: bool = False
    trains: bool = True  # false for --help, --cfg and the like

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "CommandLine":
        args = get_args_parser().parse_args(list(arguments))
        shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
        return cls(
            overrides=args.overrides,
            config_dir=CONFIGS if args.config_path is None else Path(args.config_path).resolve(),
            config_name=args.config_name or "train",
            extra_dir=Path(args.config_dir).resolve() if args.config_dir else None,
            multirun=args.multirun,
            trains=not shows,
        )

    def parsed(self) -> list[Override]:
        parser = OverridesParser.create()
        parsed, lines = [], []
        for text in self.overrides:
            try:
                parsed.append(parser.parse_override(text))
            except HydraException:
                lines.append(
                    f"{text}: cannot be read as key=value; quote values with spaces: 'k=\"v\"'"
                )
        if lines:
            raise ConfigError(*lines)
        return parsed


@dataclass(frozen=True)
class Composed:
    """A composed configuration, and where its keys come from."""

    config: DictConfig
    choices: dict[str, str | None]
    overrides: list[Override]
    folders: list[Path] = field(default_factory=lambda: [CONFIGS])

    def origin(self, key: str) -> str:
        """Return what set ``key``: the command line, or a file."""
        for override in self.overrides:
            typed = override.key_or_group
            if key == typed or key.startswith(typed + ".") or typed.startswith(key + "."):
                return "command line"
        for strong in LAST_WORD:
            file = self._file(strong)
            if file is not None and _mentions(file, key):
                return _shown(file)
        file = self._file(key.split(".", maxsplit=1)[0])
        return _shown(file) if file is not None else "configs/train.yaml"

    def _file(self, group: str) -> Path | None:
        """Return the file that was chosen for a group."""
        candidates = [folder / group / f"{self.choices.get(group)}.yaml" for folder in self.folders]
        return next((path for path in candidates if path.is_file()), None)


def _shown(file: Path) -> str:
    home = CONFIGS.parent
    return str(file.relative_to(home) if file.is_relative_to(home) else file)


def _mentions(path: Path, key: str) -> bool:
    node: Any = yaml.safe_load(path.read_text())
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def compose_leniently(command: CommandLine) -> Iterator[Composed]:
    """Compose what ``command`` asks for, once for each value of a sweep.

    Unknown keys are let through, so that the schema can report all mistakes together.

    Raises:
        ConfigError: an override cannot be read, or names a choice that does not exist.
    """
    overrides = command.parsed()
    folders = [folder for folder in (command.extra_dir, command.config_dir) if folder]
    refuse_explosions(folders)
    groups = _groups(folders)
    extra = [f"hydra.searchpath=[file://{command.extra_dir}]"] if command.extra_dir else []
    with initialize_config_dir(version_base="1.3", config_dir=str(command.config_dir)):
        for chosen in _one_value_each(overrides, command.multirun, groups):
            texts = [text for _, text in chosen]
            try:
                composed = compose(command.config_name, texts + extra, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(_one_line(error)) from error
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            assert isinstance(choices, dict)
            named = {str(group): choice for group, choice in choices.items()}
            yield Composed(composed, named, overrides, folders)


def _groups(folders: list[Path]) -> dict[str, list[str]]:
    """Return the choices of each group, as the folders list them."""
    files = [path for folder in folders for path in sorted(folder.glob("*/*.yaml"))]
    groups: dict[str, list[str]] = {path.parent.name: [] for path in files}
    for path in files:
        if not path.name.startswith("_"):
            groups[path.parent.name].append(path.stem)
    return groups


def _one_value_each(
    overrides: list[Override], multirun: bool, groups: dict[str, list[str]]
) -> Iterator[list[tuple[Override, str]]]:
    """Yield lists of overrides without sweeps; in turn each value of each sweep appears once."""
    values: list[list[str]] = []
    lines: list[str] = []
    for override in overrides:
        key, text = override.key_or_group, override.input_line or ""
        if override.is_sweep_override() and not multirun:
            lines.append(
                f"{text}: several values make a sweep; add -m, or quote a list: '{key}=[...]'"
            )
            continue
        raw = _elements(override)
        lines += [line for value in raw if (line := _unknown_choice(key, value, groups))]
        values.append([_let_through(override, value, groups) for value in raw])
    if lines:
        raise ConfigError(*lines)
    first = [v[0] for v in values if v]
    kept = [o for o, v in zip(overrides, values, strict=True) if v]
    yield list(zip(kept, first, strict=True))
    for position, options in enumerate(v for v in values if v):
        for option in options[1:]:
            variant = [*first[:position], option, *first[position + 1 :]]
            yield list(zip(kept, variant, strict=True))


def _elements(override: Override) -> list[str | None]:
    """Return the values of an override as text: one, or each of a sweep's."""
    if override.is_delete():
        return [None]
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_interval_sweep():
        return []  # the sweeper draws from it; the key keeps its default in the check
    return [str(value) for value in override.sweep_string_iterator()]


def _unknown_choice(key: str, value: str | None, groups: dict[str, list[str]]) -> str | None:
    group = key.split("@", maxsplit=1)[0]
    if group not in groups or value is None or value in groups[group] or value == "null":
        return None
    if value[:1] in "[{":
        return None
    options = ", ".join(groups[group])
    return (
        f"{key}={value}: no such choice{did_you_mean(value, groups[group])}; choose from {options}"
    )


def _let_through(override: Override, value: str | None, groups: dict[str, list[str]]) -> str:
    """Return an override of one value, forced where it names a key that may not exist."""
    typed = override.input_line or ""
    if value is None or override.is_delete():
        return typed
    key = typed.split("=", maxsplit=1)[0]
    bare = key.lstrip("+")
    if override.key_or_group in groups or bare.startswith("hydra"):
        return f"{key}={value}"
    return f"++{bare}={value}"


def _one_line(error: Exception) -> str:
    return next(line for line in str(error).splitlines() if line.strip())
