"""``resume=auto``: the newest unfinished run of the same configuration, or a new one."""

import sys
from itertools import chain
from pathlib import Path

from hydra.core.override_parser.types import Override

from convtrain.config.identity import role_of
from convtrain.config.schema import Config
from convtrain.process.ranks import is_main_process
from convtrain.run.directory import LOGS, Run, runs_in

AUTO = "resume=auto"


def choose_run(config: Config, typed: list[Override]) -> Path | None:
    """Return the directory of the run that ``resume=auto`` chooses, if any, and print the choice.

    It is the newest run that has a checkpoint and no result, and differs only in keys that may
    change on resume. It is in ``logs/runs`` or at ``hydra.run.dir``. A finished run is chosen only
    there; it is not trained again.

    On rank 0, a run that another process trains counts as well: joining it is refused later. On
    other ranks it does not, because rank 0 may have started it since.
    """
    given = [Run(str(o.value())) for o in typed if o.key_or_group == "hydra.run.dir"]
    place = given[-1:]  # the last one counts
    runs = [run for folder in Path(LOGS, "runs").glob("*") for run in runs_in(folder)]
    begun = [run for run in (*runs, *place) if run.is_begun and not run.is_finished]
    begun.sort(key=lambda run: run.config.stat().st_mtime, reverse=True)
    is_main = is_main_process()
    resumable = (run for run in begun if run.is_resumable or (is_main and run.is_locked))
    candidates = chain(resumable, (run for run in place if run.is_finished))
    chosen = next((r.path for r in candidates if r.same_as(config, resumed=True)), None)
    none = "no unfinished run of this configuration; a new one starts"
    print(f"{AUTO}: {f'resumes {chosen}' if chosen else none}", file=sys.stderr)
    return chosen


def is_kept(override: Override) -> bool:
    """Tell whether an override still counts once ``resume=auto`` has found a run."""
    key = override.key_or_group
    return role_of(key) is not None or (key.startswith("hydra.") and key != "hydra.run.dir")
