"""``resume=auto``: the newest unfinished run of the same configuration, or a new one."""

import sys
from pathlib import Path

from hydra.core.override_parser.types import Override

from convtrain.config.identity import role_of
from convtrain.config.schema import Config
from convtrain.process.ranks import is_main_process
from convtrain.run.directory import LOGS, Run, runs_in

AUTO = "resume=auto"


def choose_run(config: Config, typed: list[Override]) -> Path | None:
    """Return the directory of the run that ``resume=auto`` chooses, if any, and print the choice.

    The run has a checkpoint and no result, and differs only in keys that may change on resume. It
    is in ``logs/runs`` or at ``hydra.run.dir``. A finished run is chosen only there; it is not
    trained again.
    """
    given = [str(o.value()) for o in typed if o.key_or_group == "hydra.run.dir"]
    place = Path(given[-1]) if given else None  # the last one counts
    run = newest_unfinished(config, place)
    if run is None and place and Run(place).is_finished:
        run = place if Run(place).same_as(config, resumed=True) else None
    found = f"resumes {run}" if run else "no unfinished run of this configuration; a new one starts"
    print(f"{AUTO}: {found}", file=sys.stderr)
    return run


def newest_unfinished(config: Config, place: Path | None = None) -> Path | None:
    """Return the directory of the newest unfinished run of a configuration, if there is one.

    On rank 0, a run that another process trains counts as well: joining it is refused later. On
    other ranks it does not, because rank 0 may have started it since.
    """
    runs = [run for folder in Path(LOGS, "runs").glob("*") for run in runs_in(folder)]
    runs += [Run(place)] if place is not None else []
    begun = [run for run in runs if run.is_begun and not run.is_finished]
    is_main = is_main_process()
    for run in sorted(begun, key=lambda run: run.config.stat().st_mtime, reverse=True):
        if (run.is_resumable or (is_main and run.is_locked)) and run.same_as(config, resumed=True):
            return run.path
    return None


def is_kept(override: Override) -> bool:
    """Tell whether an override still counts once ``resume=auto`` has found a run."""
    key = override.key_or_group
    return role_of(key) is not None or (key.startswith("hydra.") and key != "hydra.run.dir")
