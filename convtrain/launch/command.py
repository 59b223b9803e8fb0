"""``python train.py``: an answer at once, or a command that is checked and then run by Hydra."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from convtrain.command.command_line import CommandLine
from convtrain.command.hydra_app import answer, start
from convtrain.errors import ConfigError, ConvtrainError
from convtrain.process.output import print_error
from convtrain.process.startup import imports_without_gc
from convtrain.run.commands import options_of, overrides_in

if TYPE_CHECKING:
    from convtrain.config.schema import Config


def run_command(arguments: Sequence[str]) -> None:
    """Do what ``python train.py ARGUMENTS`` does; exit with a status where something is wrong.

    A run is composed and validated once: Hydra takes what was checked, and the typed configuration
    goes to the pipeline. A sweep composes one configuration for each job, in the job.
    """
    if "--version" in arguments:
        from convtrain.command.help import versions

        return print(versions())
    try:
        with imports_without_gc():  # what is composed stays as long as what is imported
            command = CommandLine.parse(arguments)
            if command.options.help:
                from convtrain.command.help import help_text

                return print(help_text(command.folders))
            if not command.trains:
                return answer(command)
            from convtrain.command.configure import configure_command

            configured = configure_command(command)
        composed = configured.composed
        settings = {**configured.settings, **join_ranks(command.multirun, composed.whole)}
    except ConvtrainError as error:
        print_error(error)
        sys.exit(error.exit_status)
    composed.loader.settings = settings
    task = train_job
    if not command.multirun:
        composed.loader.composed = composed.whole
        task = partial(train_job, config=configured.config)
    start(configured.command, composed.loader, task)


def train_job(composed: DictConfig, config: "Config | None" = None) -> float | None:
    """Train as the job that Hydra has started; ``config`` is its configuration if checked."""
    from convtrain.command.job_config import resolve_config
    from convtrain.launch.job import run_job

    job = HydraConfig.get()
    typed = overrides_in(job.overrides.task)
    cwd = Path(job.runtime.cwd) if job.job.chdir else None
    return run_job(
        lambda: config or resolve_config(composed, typed, cwd=cwd),
        run_dir=Path(job.runtime.output_dir),
        overrides=[*options_of(job), *typed],
        multirun=job.mode == RunMode.MULTIRUN,
    )


def join_ranks(multirun: bool, composed: DictConfig) -> dict[str, object]:
    """Join the other processes that a launcher has started, in one run directory.

    Each of them has composed the configuration by itself, and a new directory's name must be the
    same for all. Ranks other than 0 log to files of their own. Returns what this rank sets in
    Hydra's node, by dotted key; raises ConvtrainError if the processes cannot train together.
    """
    from convtrain.process.ranks import settle_rank

    here = settle_rank()
    if here.launcher is None:
        return {}
    if multirun:
        raise ConfigError(
            f"-m: a sweep starts its own processes; leave {here.launcher} out and set "
            f"trainer.devices={here.local_world_size}"
        )
    from convtrain.command.resolvers import register_resolvers
    from convtrain.process.joining import join

    register_resolvers(stamp=join(here))
    OmegaConf.clear_cache(composed)  # which holds a directory of this process alone
    if here.rank == 0:
        return {}
    return {"hydra.job.name": f"train.rank{here.rank}", "hydra.output_subdir": None}
