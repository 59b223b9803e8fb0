"""The guard in front of Hydra: what it composes is checked before it makes anything of it.

The check of the command line composes a configuration of its own. Between that and what Hydra
composes, for a run, for each job of a sweep and in the processes of launchers, a value may differ:
an interpolation may depend on the time, a sweeper has overrides of its own. So Hydra's loader of
configurations is replaced by one that checks the node again, and fixes what was checked: the parts
that Hydra makes objects, variables and paths of hold no interpolations after that.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override

from convtrain.command.hydra_node import (
    Plain,
    check_hydra,
    searchpath_mistakes,
    trusted_by,
    with_late_values,
)
from convtrain.command.resolvers import register_resolvers
from convtrain.config.messages import line
from convtrain.errors import ConfigError

FIXED = (
    "callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "job.name", "job.env_set",
    "output_subdir", "sweep.subdir",
)  # fmt: skip


class FolderLoader(ConfigLoaderImpl):
    """Looks for files in folders alone: any other search path would import a package."""

    def searched(self, config_name: str | None, overrides: Sequence[Override]) -> list[Path]:
        """Return the folders of ``hydra.searchpath``, typed or in the primary configuration.

        Raises:
            ConfigError: one of them is a package, or no folder.
        """
        try:
            primary = self.repository.load_config(config_name) if config_name else None
        except Exception:  # whoever composes next says what is wrong with the file
            return []
        searched: Any = None
        if primary is not None and OmegaConf.is_dict(primary.config):
            searched = OmegaConf.select(primary.config, "hydra.searchpath")
        for override in overrides:
            if override.get_key_element() == "hydra.searchpath":
                searched = override.value()
                break
        folders = list(searched) if OmegaConf.is_list(searched) else searched
        raw = {"hydra": {"searchpath": folders}}
        if wrong := list(searchpath_mistakes(folders)):
            raise ConfigError(*(line(mistake, raw) for mistake in wrong))
        return [Path(folder.removeprefix("file://")) for folder in folders or ()]

    def _process_config_searchpath(
        self,
        config_name: str | None,
        parsed_overrides: list[Override],
        repo: CachingConfigRepository,
    ) -> None:
        self.searched(config_name, parsed_overrides)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


class GuardedLoader(FolderLoader):
    """Checks Hydra's node of all that it composes, and exits with status 2 where it is wrong."""

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        register_resolvers()  # a launcher's process has none of ours
        try:
            composed = super().load_configuration(*args, **kwargs)
            _fix(composed, _checked(composed))
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_status)
        return composed


def stand_guard() -> None:
    """Make Hydra load configurations through ``GuardedLoader``, for the rest of the process."""
    hydra._internal.hydra.ConfigLoaderImpl = GuardedLoader  # type: ignore[misc]


def _checked(composed: DictConfig) -> Plain:
    plain, mistakes, unresolved = check_hydra(composed.hydra, trusted_by(composed), imports=True)
    if wrong := [*mistakes, *unresolved]:
        raise ConfigError(*(line(mistake, {"hydra": with_late_values(plain)}) for mistake in wrong))
    return plain


def _fix(composed: DictConfig, plain: Plain) -> None:
    """Put the values that were checked in the place of what they were resolved from."""
    with flag_override(composed, ["struct", "readonly"], False):
        for key in FIXED:
            value: Any = plain
            for part in key.split("."):
                value = value.get(part)
            OmegaConf.update(composed, f"hydra.{key}", with_late_values(value), merge=False)
