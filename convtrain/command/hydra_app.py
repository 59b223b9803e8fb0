"""Hydra's command line: its own answers, and the run or the sweep that it starts."""

from collections.abc import Callable

from hydra._internal import utils
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser, run_and_report
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from convtrain.command.command_line import CommandLine
from convtrain.command.loader import GuardedLoader, make_loader
from convtrain.command.resolvers import register_resolvers
from convtrain.errors import ConfigError
from convtrain.program import as_typed


def answer(command: CommandLine) -> None:
    """Print the answer to ``--cfg``, ``--info``, ``--hydra-help`` or ``--shell-completion``."""
    asked, name, overrides = command.options, command.config_name, command.overrides
    register_resolvers()
    loader = make_loader(command)
    loader.adds_keys = bool(asked.cfg)
    hydra = _hydra(loader)
    if asked.hydra_help:
        utils._get_exec_command = lambda: as_typed("python train.py")
        hydra.hydra_help(name, get_args_parser(), asked)
    elif asked.cfg:
        composed = run_and_report(
            lambda: loader.load_configuration(name, overrides, RunMode.RUN, from_shell=False)
        )
        _refuse_unknown_keys(composed, command)
        loader.composed = composed
        run_and_report(
            lambda: hydra.show_cfg(name, overrides, asked.cfg, asked.package, asked.resolve)
        )
    elif asked.shell_completion:
        run_and_report(lambda: hydra.shell_completion(name, overrides))
    else:
        hydra.show_info(asked.info, name, overrides)


def _refuse_unknown_keys(composed: DictConfig, command: CommandLine) -> None:
    """Raise ConfigError for typed keys that neither a file nor the schema has."""
    typed = [each for each in command.parsed([]) if each.type == OverrideType.CHANGE]
    groups = composed.hydra.runtime.choices
    keys = [each.key_or_group for each in typed if each.key_or_group not in groups]
    if not (keys := [key for key in keys if not key.startswith("hydra")]):
        return
    from convtrain.config.messages import is_known, nearest

    plain = OmegaConf.to_container(composed, resolve=False)
    wrong = [key for key in keys if not is_known(key, plain)]
    if wrong:
        raise ConfigError(*(f"{key}: no such key{nearest(key, plain)}" for key in wrong))


def start(
    command: CommandLine, loader: GuardedLoader, task: Callable[[DictConfig], float | None]
) -> None:
    """Let Hydra run a task in the job's directory: once, or for each job of a sweep."""
    hydra = _hydra(loader)
    run = hydra.multirun if command.multirun else hydra.run
    run_and_report(lambda: run(command.config_name, task, command.overrides))


def _hydra(loader: GuardedLoader) -> Hydra:
    hydra = Hydra(task_name="train", config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    return hydra
