"""Train a declared network: ``python train.py model=functional optimizer.lr=0.05``.

Hydra composes the configuration from ``configs/``, the schema checks it, and the pipeline trains.
Nothing heavy is imported at the top, so that ``--help`` and a mistyped key answer at once.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from convtrain.command.auto import choose_run
from convtrain.command.check import check_command_line, resolve_config
from convtrain.command.guard import stand_guard
from convtrain.command.help import read_arguments
from convtrain.command.resolvers import register_resolvers
from convtrain.command.this_rank import command_of_this_rank
from convtrain.process.startup import running_as_command
from convtrain.run.commands import options_of, overrides_in

register_resolvers()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> float | None:
    from convtrain.launch.job import run_job

    job = HydraConfig.get()
    typed = overrides_in(job.overrides.task)
    cwd = Path(job.runtime.cwd) if job.job.chdir else None
    return run_job(
        lambda: resolve_config(composed, typed, cwd=cwd),
        run_dir=Path(job.runtime.output_dir),
        overrides=[*options_of(job), *typed],
        multirun=job.mode == RunMode.MULTIRUN,
    )


if __name__ == "__main__":
    with running_as_command():
        arguments = read_arguments(sys.argv[1:])
        sys.argv[1:] = command_of_this_rank(check_command_line(choose_run(arguments)))
        stand_guard()
        main()
