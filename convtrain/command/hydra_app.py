"""Hydra's command line: its own answers, and the run or the sweep that it starts."""

from collections.abc import Callable

from hydra._internal import utils
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser, run_and_report
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from convtrain.command.command_line import CommandLine
from convtrain.command.loader import GuardedLoader, make_loader
from convtrain.command.resolvers import register_resolvers
from convtrain.program import as_typed


def answer(command: CommandLine) -> None:
    """Print the answer to ``--cfg``, ``--info``, ``--hydra-help`` or ``--shell-completion``."""
    asked, name, overrides = command.options, command.config_name, command.overrides
    register_resolvers()
    loader = make_loader(command)
    loader.adds_keys = False
    hydra = _hydra(loader)
    if asked.hydra_help:
        utils._get_exec_command = lambda: as_typed("python train.py")
        hydra.hydra_help(name, get_args_parser(), asked)
    elif asked.cfg:
        run_and_report(
            lambda: hydra.show_cfg(name, overrides, asked.cfg, asked.package, asked.resolve)
        )
    elif asked.shell_completion:
        run_and_report(lambda: hydra.shell_completion(name, overrides))
    else:
        hydra.show_info(asked.info, name, overrides)


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
