"""The stored configuration of a resumed run, and the overrides that may change it."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.overrides import SEVERAL, parse_override
from convtrain.config.identity import ROLES, role_of
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, OccupiedError, first_line
from convtrain.run.directory import Run
from convtrain.text import plain_as_omegaconf


def stored_config(
    run_dir: str, overrides: Iterable[str], composed: DictConfig | None = None
) -> DictConfig:
    """Return the configuration of a run, with the overrides of the command that resumes it.

    Args:
        composed: the configuration of that command, which has what its choices stand for.

    Raises:
        ConfigError: there is no run to resume, or an override would make it another run.
    """
    run = Run(run_dir)
    if not run.is_begun:
        raise ConfigError(_no_run(run_dir, run))
    _refuse_links(run.path)
    if run.is_finished and not run.is_resumable:
        raise ConfigError(
            f"resume={run_dir}: is finished and has no checkpoint to resume from; train it again"
        )
    stored = read_config(run)
    if "allow_change" in stored.get("data", {}):
        stored.data.allow_change = False  # must be typed each time
    lines = []
    for override in filter(None, map(parse_override, overrides)):  # the others have been reported
        key = override.key_or_group
        if key == "hydra.run.dir" and Path(str(override.value())).resolve() != run.path.resolve():
            lines.append(
                f"{override.input_line}: a run that is resumed stays in its directory; "
                f"leave it out, or copy {run_dir} there and resume that"
            )
        if key.startswith("hydra."):
            continue
        if role_of(key) is None:
            lines.append(
                f"{override.input_line}: cannot change when a run is resumed; allowed are "
                f"{', '.join(key for key in ROLES if key != 'resume')}"
            )
            continue
        if override.is_sweep_override():
            lines.append(f"{override.input_line}: a run that is resumed takes one value; give one")
            continue
        if key in SEVERAL and not isinstance(override.value(), dict):  # choices
            stored[key] = {} if composed is None else composed.get(key) or {}
        else:
            OmegaConf.update(stored, key, override.value())
    if lines:
        raise ConfigError(*lines)
    return stored


def _no_run(resume: str, run: Run) -> str:
    return f"resume={resume}: {run.config} does not exist; give the directory of a run"


def _refuse_links(folder: Path) -> None:
    """Refuse linked files in a run, which may come from anybody: the run would write there."""
    for path in (*folder.iterdir(), *folder.glob(".hydra/*")):
        if path.is_symlink() and not path.is_dir():
            raise ConfigError(
                f"resume={folder}: {path.name} is a link to {path.readlink()}, where the run would "
                f"write; put the file itself there, or remove the link"
            )


def why_not_anew(run: Run) -> str | None:
    """Return why a new run in a directory would overwrite another run, or None."""
    if run.is_finished:
        return "holds a finished run; choose another directory, or leave this key out"
    if run.saved():
        again = run.resume_command()
        return f"holds a run that has saved checkpoints; to resume it: {again}"
    return None


def refuse_resumed(config: Config, run: Run) -> None:
    """Raise OccupiedError unless ``config.resume`` is this run, and the same training."""
    if Path(str(config.resume)).resolve() != run.path.resolve():
        raise OccupiedError(
            f"resume={config.resume}: is not the directory to train in, {run.path}; "
            f"a run that is resumed stays in its directory"
        )
    if not run.is_begun:
        raise OccupiedError(_no_run(str(config.resume), run))
    if keys := run.differing(config, resumed=True):
        raise OccupiedError(
            f"resume={config.resume}: is a run with another {', another '.join(keys[:3])}; "
            f"give these their stored values, or another directory"
        )


def refuse_lowered(config: Config, *, epochs: int, steps: int) -> None:
    """Raise ConfigError for limits below the epochs begun or the optimiser steps taken."""
    limits, done = config.trainer, {"max_epochs": epochs, "max_steps": steps}
    lines = [
        f"trainer.{key}={limit}: the run has reached {count} already; "
        f"give {count} or more, or leave it out"
        for key, count in done.items()
        if (limit := getattr(limits, key)) is not None and limit < count
    ]
    if lines:
        raise ConfigError(*lines)


def read_config(run: Run) -> DictConfig:
    """Read a run's config.yaml, in which ``${`` is text; raise ConfigError if that fails."""
    try:
        return OmegaConf.create(plain_as_omegaconf(run.read_config()))
    except (CorruptDataError, ValueError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
