"""A run's directory: its files, and the state of the run that follows from them.

``result.json`` is written last, so a run that has one is finished.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml

from convtrain.config.dotted import value_at
from convtrain.config.identity import Configuration, differing
from convtrain.config.yaml_limits import refuse_explosion
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError, first_line
from convtrain.process.atomic import remove_stale_temporaries, write_atomically
from convtrain.process.lock import NAME as LOCK
from convtrain.process.lock import holder
from convtrain.run.commands import resume_command
from convtrain.run.evaluation import Evaluation
from convtrain.run.result import Result
from convtrain.run.strict_json import from_json, to_json

LOGS = "logs"  # the folder of runs and sweeps, in the working directory
LAST = "last.ckpt"  # the newest checkpoint
TEST = "test"  # the evaluation at the end of the run


class Run:
    """A run's directory: its files, how they are read and written, and the run's state."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.overrides = self.path / "overrides.yaml"
        self.provenance = self.path / "provenance.json"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / LAST
        self.result = self.path / "result.json"
        self.error = self.path / "error.txt"
        self.report = self.path / "report.html"
        self.evaluations = self.path / "evaluations"

    def evaluation(self, name: str = TEST) -> Path:
        """Return the file of what an evaluation has measured, by default that of the end."""
        return self.evaluations / f"{name}.json"

    def predictions(self, name: str = TEST) -> Path:
        """Return the file with a row for each image of an evaluation, if the model classifies."""
        return self.evaluations / f"{name}.parquet"

    def mistakes(self, name: str = TEST) -> Path:
        """Return the file with the pictures of an evaluation's most confident mistakes."""
        return self.evaluations / f"{name}-mistakes.npz"

    # --- state ------------------------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether the directory holds a run."""
        return _exists(self.config)

    @property
    def is_entered(self) -> bool:
        """Whether a process has ever locked or written the directory, even if no run began."""
        return any(map(_exists, (self.config, self.overrides, self.path / LOCK)))

    @property
    def is_finished(self) -> bool:
        return _exists(self.result)

    @property
    def has_failed(self) -> bool:
        return _exists(self.error)

    @property
    def is_resumable(self) -> bool:
        """Whether there is a checkpoint to resume from; those of alarms do not count."""
        return any(not name.startswith("alarm") for name in self.saved())

    @property
    def is_locked(self) -> bool:
        return self.holder() is not None

    def holder(self) -> str | None:
        """Return a description of the process that has locked the directory, or None."""
        return holder(self.path)

    def saved(self) -> list[str]:
        with suppress(OSError):  # such as a name that is too long
            return sorted(path.name for path in self.checkpoints.glob("*.ckpt"))
        return []

    def same_as(self, config: Configuration, *, resumed: bool = False) -> bool:
        """Tell whether a configuration is the same training; False if the run's is unreadable."""
        try:
            return not self.differing(config, resumed=resumed)
        except (CorruptDataError, MissingDataError):
            return False

    def differing(self, config: Configuration, *, resumed: bool = False) -> list[str]:
        """Return the keys by which a configuration is another training than this run's.

        ``resumed`` ignores keys that may change on resume. It raises as ``read_config`` does.
        """
        stored = self.read_config()
        keys = differing(stored, config, resumed=resumed)
        if "trainer.devices" in keys and self._holds_what_was_launched():
            plain = config if isinstance(config, Mapping) else config.model_dump()
            if value_at(plain, "trainer.devices") == "auto":  # the launcher found the number
                keys.remove("trainer.devices")
        return keys

    def _holds_what_was_launched(self) -> bool:
        # older versions stored in config.yaml the devices that the launcher had found
        with suppress(CorruptDataError):
            provenance = self.read_provenance()
            return bool(provenance) and "launched" not in provenance
        return False

    # --- writing ----------------------------------------------------------------------------------

    def announce(self, config: Configuration, overrides: Sequence[str]) -> None:
        """Store the configuration before anything can fail; delete an earlier result and error."""
        for stale in (
            self.result,
            self.error,
            self.evaluation(),
            self.predictions(),
            self.mistakes(),
        ):
            stale.unlink(missing_ok=True)
        plain = dict(config) if isinstance(config, Mapping) else config.model_dump(by_alias=True)
        write_atomically(self.config, yaml.safe_dump(plain, sort_keys=False))
        write_atomically(self.overrides, yaml.safe_dump(list(overrides)))

    def begin(
        self, config: Configuration, overrides: Sequence[str], provenance: Mapping[str, object]
    ) -> None:
        """Store configuration and provenance of the training that is about to start."""
        remove_stale_temporaries(self.path, deep=True)
        self.announce(config, overrides)
        write_atomically(self.provenance, to_json(provenance))

    def finish(self, result: Result) -> None:
        write_atomically(self.result, to_json(result))

    def fail(self, message: str, overrides: Sequence[str] = ()) -> None:
        with suppress(TrainingError):  # a full disk may be what failed
            if not self.overrides.is_file():
                write_atomically(self.overrides, yaml.safe_dump(list(overrides)))
            write_atomically(self.error, message.rstrip() + "\n")

    # --- reading ----------------------------------------------------------------------------------
    # Each raises CorruptDataError if the file exists but cannot be read.

    def require(self) -> None:
        """Raise MissingDataError if the directory holds no run."""
        if not self.is_begun:
            raise MissingDataError(
                f"{self.path}: not a run; give a directory that contains config.yaml"
            )

    def read_config(self) -> dict[str, Any]:
        """Return the configuration that was asked for; MissingDataError if there is no run."""
        self.require()
        refuse_explosion(self.config)
        return _mapping(self.config, yaml.safe_load)

    def read_result(self) -> Result | None:
        """Return the result, or None if the run is not finished."""
        if not self.is_finished:
            return None
        return cast(Result, _mapping(self.result, from_json))

    def finished_result(self) -> Result:
        """Return the result; MissingDataError if the run is not finished."""
        if (result := self.read_result()) is None:
            raise MissingDataError(
                f"{self.path}: is not finished, so it has no result to compare; "
                f"resume it: {self.resume_command()}"
            )
        return result

    def read_evaluation(self, name: str = TEST) -> Evaluation | None:
        """Return what an evaluation has measured, or None if there is none of this name."""
        if not _exists(path := self.evaluation(name)):
            return None
        return cast(Evaluation, _mapping(path, from_json))

    def read_provenance(self) -> dict[str, Any]:
        """Return the run's versions, machine and devices; empty if they were not stored."""
        if not _exists(self.provenance):
            return {}
        return _mapping(self.provenance, from_json)

    def resume_command(self, *overrides: str) -> str:
        """Return the command that resumes the run, in the folder in which it was started."""
        folder: object = None
        with suppress(CorruptDataError):
            folder = value_at(self.read_provenance(), "project.folder", None)
        cwd = Path(folder) if isinstance(folder, str) else None
        return resume_command(self.path, *overrides, cwd=cwd)

    def read_error(self) -> str | None:
        """Return why the run failed, or None."""
        return self.error.read_text(errors="replace").strip() if self.has_failed else None

    def read_overrides(self) -> list[str]:
        """Return the options and overrides that were typed; empty if they were not stored."""
        if not _exists(self.overrides):
            return []
        refuse_explosion(self.overrides)
        read = _read(self.overrides, yaml.safe_load)
        if not isinstance(read, list) or not all(isinstance(text, str) for text in read):
            raise CorruptDataError(f"{self.overrides}: damaged, it is not a list of overrides")
        return read


def runs_in(folder: Path) -> list[Run]:
    """Return the runs in the subfolders of a folder."""
    with suppress(OSError):
        return [run for path in sorted(folder.iterdir()) if (run := Run(path)).is_begun]
    return []


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _read(path: Path, parse: Callable[[str], object]) -> object:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise CorruptDataError(f"{path}: damaged, {first_line(error)}") from error


def _mapping(path: Path, parse: Callable[[str], object]) -> dict[str, Any]:
    read = _read(path, parse)
    if not isinstance(read, dict):
        raise CorruptDataError(f"{path}: damaged, it does not contain keys and values")
    return read
