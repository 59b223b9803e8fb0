"""``resume=auto``: the newest unfinished run of the same configuration, or a new one."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convtrain.command.check import resolve_config
from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_leniently
from convtrain.config.identity import role_of
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.process.ranks import is_main_process
from convtrain.run.directory import LOGS, Run, runs_in
from convtrain.text import as_hydra_value

AUTO = "resume=auto"


def choose_run(arguments: Sequence[str]) -> list[str]:
    """Return the command line with ``resume=auto`` replaced by the run that is meant.

    A run is unfinished if it has a checkpoint and no result. It has the same configuration if no
    more differs than may be changed when a run is resumed; what was typed of that is kept. It is
    looked for in ``logs/runs``, and where ``hydra.run.dir`` says; there, a finished one is meant
    as well, which is not trained again.
    """
    if AUTO not in arguments:
        return list(arguments)
    command = CommandLine.parse(arguments)
    typed = [text for text in command.overrides if text != AUTO]
    new = [text for text in arguments if text != AUTO]
    if command.multirun:
        print(
            f"{AUTO}: leave it out; the same command resumes a sweep",
            file=sys.stderr,
        )
        sys.exit(ConfigError.exit_status)
    try:
        (composed,) = compose_leniently(replace(command, overrides=typed))
        config = resolve_config(composed.config, typed, composed.origin)
    except ConfigError:  # who checks the command line next tells it
        return new
    typed_there = [o.value() for o in composed.overrides if _key(o) == "hydra.run.dir"]
    place = Path(str(typed_there[-1])) if typed_there else None  # the last one counts
    run = newest_unfinished(config, place) or finished_there(config, place)
    if run is None:
        print(f"{AUTO}: no unfinished run of this configuration; a new one begins", file=sys.stderr)
        return new
    print(f"{AUTO}: resumes {run}", file=sys.stderr)
    fixed = {o.input_line for o in composed.overrides if not _may_stay(_key(o))}
    return [text for text in new if text not in fixed] + [f"resume={as_hydra_value(str(run))}"]


def newest_unfinished(config: Config, place: Path | None = None) -> Path | None:
    """Return the directory of the newest unfinished run of a configuration, if there is one.

    A run that another process trains counts as well: to join it is refused later. Ranks other than
    0 must choose as rank 0 does, whatever it has begun since.
    """
    runs = [run for folder in Path(LOGS, "runs").glob("*") for run in runs_in(folder)]
    runs += [Run(place)] if place is not None else []
    begun = [run for run in runs if run.is_begun and not run.is_finished]
    is_main = is_main_process()
    for run in sorted(begun, key=lambda run: run.config.stat().st_mtime, reverse=True):
        if (run.is_resumable or (is_main and run.is_locked)) and run.same_as(config, resumed=True):
            return run.path
    return None


def finished_there(config: Config, place: Path | None = None) -> Path | None:
    """Return the directory that was given, if a run of the configuration is finished there."""
    if place is None or not Run(place).is_finished:
        return None
    return place if Run(place).same_as(config, resumed=True) else None


def _key(override: Any) -> str:
    return str(override.key_or_group)


def _may_stay(key: str) -> bool:
    return role_of(key) is not None or (key.startswith("hydra.") and key != "hydra.run.dir")
