"""Hydra's config loader, restricted to folders, with Hydra's own node checked.

A job of a sweep may compose to other values than the check of its command did: an interpolation may
depend on the time, and a sweeper adds overrides of its own. So each configuration is checked again
when Hydra takes it. The parts that Hydra makes objects, variables and paths of then hold the
checked values in place of interpolations.
"""

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override

from convtrain.command.command_line import CommandLine
from convtrain.command.hydra_node.check import check_hydra, trust_of, with_late_values
from convtrain.command.hydra_node.paths import searchpath_mistakes
from convtrain.command.overrides import parse_override
from convtrain.command.resolvers import register_resolvers
from convtrain.config.dotted import value_at
from convtrain.config.metrics import by_name
from convtrain.config.mistakes import line
from convtrain.errors import ConfigError
from convtrain.process.startup import import_from_cwd

FIXED = (
    "callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "job.name", "job.env_set",
    "output_subdir", "sweep.subdir",
)  # fmt: skip


class GuardedLoader(ConfigLoaderImpl):
    """Searches folders alone, because any other search path would import a package.

    It checks Hydra's node of each configuration, and exits with status 2 if it is wrong. Launchers
    send it to their processes, with its attributes.
    """

    adds_keys = True  # keys that no file has, so that the schema reports all mistakes together
    composed: DictConfig | None = None  # taken once, in place of composing it again
    settings: Mapping[str, object] = {}  # by dotted key, set in every configuration

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._loaded: CachingConfigRepository | None = None

    def __setstate__(self, state: dict[str, object]) -> None:
        import_from_cwd()  # in a launcher's process, before Hydra looks for its plugins there
        self.__dict__.update(state)

    def searched(self, config_name: str | None, overrides: Sequence[Override]) -> list[Path]:
        """Return the folders of ``hydra.searchpath``; raise ConfigError if one is not a folder."""
        self._loaded = repository = CachingConfigRepository(self.repository)
        return _searched(config_name, overrides, repository)

    def compose(self, config_name: str, overrides: list[str]) -> DictConfig:
        """Compose a run without checking Hydra's node."""
        return ConfigLoaderImpl.load_configuration(
            self, config_name, overrides, RunMode.RUN, from_shell=False
        )

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Load a file, with the metrics that it lists by name, so that they merge with others."""
        loaded: ConfigResult = super()._load_single_config(default, repo)
        listed = OmegaConf.select(loaded.config, "metrics", throw_on_resolution_failure=False)
        if isinstance(listed, ListConfig):
            try:
                named = by_name(cast(list[object], OmegaConf.to_container(listed)))
                OmegaConf.update(loaded.config, "metrics", named, merge=False, force_add=True)
            except ValueError as error:
                raise ConfigError(f"metrics: {error} [set in: {default.config_path}]") from None
        return loaded

    def load_configuration(self, *args: object, **kwargs: object) -> DictConfig:
        if not OmegaConf.has_resolver("run_dir"):  # in a launcher's process
            register_resolvers()
        try:
            composed, self.composed = self.composed, None
            if composed is None:
                composed = super().load_configuration(*args, **kwargs)  # type: ignore[arg-type]
            with flag_override(composed, ["struct", "readonly"], False):
                for key, value in self.settings.items():
                    OmegaConf.update(composed, key, value, merge=False)
                _fix(composed)
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_status)
        return composed

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = [override for text in overrides if (override := parse_override(text)) is not None]
        if len(parsed) < len(overrides):  # Hydra's parser raises the error
            return super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        repository, self._loaded = self._loaded, None
        repository = repository or CachingConfigRepository(self.repository)
        self._process_config_searchpath(config_name, parsed, repository)
        for override in parsed if self.adds_keys else ():
            key, changes = override.key_or_group, override.type == OverrideType.CHANGE
            is_choice = repository.group_exists(key) and not isinstance(override.value(), dict)
            if changes and not is_choice and not key.startswith("hydra"):
                override.type = OverrideType.FORCE_ADD
        return parsed, repository

    def _process_config_searchpath(
        self,
        config_name: str | None,
        parsed_overrides: list[Override],
        repo: CachingConfigRepository,
    ) -> None:
        if folders := _searched(config_name, parsed_overrides, repo):
            path = deepcopy(self.config_search_path)
            for folder in folders:
                _before_main(path, "hydra.searchpath", folder)
            repo.initialize_sources(path)


def _searched(
    config_name: str | None, overrides: Sequence[Override], repository: CachingConfigRepository
) -> list[Path]:
    try:
        primary = repository.load_config(config_name) if config_name else None
    except Exception:  # composing reports what is wrong with the file
        return []
    searched: object = None
    if primary is not None and OmegaConf.is_dict(primary.config):
        searched = OmegaConf.select(primary.config, "hydra.searchpath")
    typed = [o.value() for o in overrides if o.get_key_element() == "hydra.searchpath"]
    searched = typed[0] if typed else searched
    folders = OmegaConf.to_container(searched) if OmegaConf.is_list(searched) else searched
    if wrong := list(searchpath_mistakes(folders)):
        raise ConfigError(*(line(mistake, {"hydra": {"searchpath": folders}}) for mistake in wrong))
    found = folders if isinstance(folders, list) else []
    return [Path(folder.removeprefix("file://")) for folder in found]


def _fix(composed: DictConfig) -> None:
    """Check Hydra's node, and replace its interpolations by the values that were checked."""
    plain, mistakes, unresolved = check_hydra(composed.hydra, trust_of(composed), imports=True)
    if wrong := [*mistakes, *unresolved]:
        shown = {"hydra": with_late_values(plain)}
        raise ConfigError(*(line(mistake, shown) for mistake in wrong))
    for key in FIXED:
        value = with_late_values(value_at(plain, key, None))
        OmegaConf.update(composed, f"hydra.{key}", value, merge=False)


def make_loader(command: CommandLine) -> GuardedLoader:
    """Return a loader that searches the folders of a command, the ones of the user first."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "train")
    path = create_config_search_path(str(command.config_dir))
    if command.extra_dir:
        _before_main(path, "command-line", command.extra_dir)
    if command.own_dir:
        _before_main(path, "working directory", command.own_dir)
    return GuardedLoader(path)


def _before_main(path: ConfigSearchPath, provider: str, folder: Path) -> None:
    path.prepend(provider, f"file://{folder}", anchor=SearchPathQuery(provider="main"))
