"""A run as its directory tells it: what was asked for, how far it is, what came of it.

``result.json`` is written last: where it exists, the run is finished. Nobody else looks at these
files to tell how a run stands, and nothing here imports torch.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from convtrain.config.identity import Configuration, differing
from convtrain.config.schema import Config
from convtrain.config.yaml_limits import refuse_explosion
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError, first_line
from convtrain.process.atomic import atomic_write, remove_stale_temporaries
from convtrain.process.lock import holder
from convtrain.run.commands import resume_command
from convtrain.run.strict_json import from_json, to_json

LOGS = "logs"
"""The folder of runs and sweeps, below the working directory."""


class Run:
    """The layout of a run's directory, how each of its records is written and read, how it is."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.overrides = self.path / "overrides.yaml"
        self.provenance = self.path / "provenance.json"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.result = self.path / "result.json"
        self.error = self.path / "error.txt"

    # --- how it is --------------------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether the directory is a run's."""
        return _exists(self.config)

    @property
    def is_finished(self) -> bool:
        return _exists(self.result)

    @property
    def is_resumable(self) -> bool:
        """Whether there is a checkpoint to resume from; those of an alarm show the trouble only."""
        return any(not name.startswith("alarm") for name in self.saved())

    @property
    def is_locked(self) -> bool:
        """Whether a process is at work in the directory."""
        return self.holder() is not None

    def holder(self) -> str | None:
        """Return who is at work in the directory, as a message names it, or None."""
        return holder(self.path)

    def saved(self) -> list[str]:
        """Return the names of all checkpoints."""
        with suppress(OSError):  # such as a name that is too long
            return sorted(path.name for path in self.checkpoints.glob("*.ckpt"))
        return []

    def same_as(self, config: Configuration, *, resumed: bool = False) -> bool:
        """Tell whether this is a run of a configuration; False where its own cannot be read.

        Args:
            config: as it was asked for.
            resumed: whether it may differ in what may change when a run is resumed.
        """
        try:
            return not self.differing(config, resumed=resumed)
        except (CorruptDataError, MissingDataError):
            return False

    def differing(self, config: Configuration, *, resumed: bool = False) -> list[str]:
        """Return the keys by which a configuration is another training than this run.

        Raises:
            MissingDataError: this is no run.
            CorruptDataError: its configuration cannot be read.
        """
        stored = self.read_config()
        keys = differing(stored, config, resumed=resumed)
        if "trainer.devices" in keys and self._holds_what_was_launched():
            plain = config.model_dump() if isinstance(config, Config) else config
            if plain.get("trainer", {}).get("devices") == "auto":  # which was found, not asked for
                keys.remove("trainer.devices")
        return keys

    def _holds_what_was_launched(self) -> bool:
        """Whether this is a run of an older version, whose config.yaml is not what was asked."""
        with suppress(CorruptDataError):
            provenance = self.read_provenance()
            return bool(provenance) and "launched" not in provenance
        return False

    # --- writing ----------------------------------------------------------------------------------

    def announce(self, config: Configuration, overrides: Sequence[str]) -> None:
        """Write down what is asked for, before anything of it can fail.

        What an earlier training has come to is withdrawn; its checkpoints stay.
        """
        for stale in (self.result, self.error):
            stale.unlink(missing_ok=True)
        plain = config.model_dump(by_alias=True) if isinstance(config, Config) else dict(config)
        write_atomically(self.config, yaml.safe_dump(plain, sort_keys=False))
        write_atomically(self.overrides, yaml.safe_dump(list(overrides)))

    def begin(
        self, config: Configuration, overrides: Sequence[str], provenance: dict[str, Any]
    ) -> None:
        """Write down what is about to be trained."""
        remove_stale_temporaries(self.path, deep=True)
        self.announce(config, overrides)
        write_atomically(self.provenance, to_json(provenance))

    def finish(self, result: dict[str, Any]) -> None:
        write_atomically(self.result, to_json(result))

    def fail(self, message: str, overrides: Sequence[str] = ()) -> None:
        with suppress(TrainingError):  # a full disk may be the very reason
            if not self.overrides.is_file():
                write_atomically(self.overrides, yaml.safe_dump(list(overrides)))
            write_atomically(self.error, message.rstrip() + "\n")

    # --- reading ----------------------------------------------------------------------------------

    def require(self) -> None:
        """Raise MissingDataError where the directory is no run's."""
        if not self.is_begun:
            raise MissingDataError(f"{self.path}: no run; give a directory that holds config.yaml")

    def read_config(self) -> dict[str, Any]:
        """Return the configuration that was asked for.

        Raises:
            MissingDataError: this is no run.
            CorruptDataError: it cannot be read.
        """
        self.require()
        refuse_explosion(self.config)
        return _mapping(self.config, _yaml(self.config))

    def read_result(self) -> dict[str, Any] | None:
        """Return the result, or None where the run is not finished.

        Raises:
            CorruptDataError: it cannot be read.
        """
        if not self.is_finished:
            return None
        return _mapping(self.result, _json(self.result))

    def finished_result(self) -> dict[str, Any]:
        """Return the result of a run that is to be compared with another.

        Raises:
            MissingDataError: the run is not finished.
            CorruptDataError: its result cannot be read.
        """
        if (result := self.read_result()) is None:
            raise MissingDataError(
                f"{self.path}: is not finished, so there is nothing to compare with; "
                f"to go on with it: {resume_command(self.path)}"
            )
        return result

    def read_provenance(self) -> dict[str, Any]:
        """Return where the run comes from; nothing where that is not known.

        Raises:
            CorruptDataError: it cannot be read.
        """
        if not _exists(self.provenance):
            return {}
        return _mapping(self.provenance, _json(self.provenance))

    def read_error(self) -> str | None:
        """Return why the run failed, or None where it did not."""
        if not _exists(self.error):
            return None
        return self.error.read_text(errors="replace").strip()

    def read_overrides(self) -> list[str]:
        """Return what was typed.

        Raises:
            CorruptDataError: it cannot be read.
        """
        if not _exists(self.overrides):
            return []
        refuse_explosion(self.overrides)
        read = _yaml(self.overrides)
        if not isinstance(read, list) or not all(isinstance(text, str) for text in read):
            raise CorruptDataError(f"{self.overrides}: damaged, it is no list of overrides")
        return read


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, at whatever moment, finds the old or the new text."""
    with atomic_write(path) as sink:
        sink.write(text.encode(errors="backslashreplace"))  # a file's name need not be UTF-8


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(path, error) from error


def _json(path: Path) -> Any:
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _mapping(path: Path, read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise CorruptDataError(f"{path}: damaged, it holds no keys and values")
    return read


def _damaged(path: Path, error: Exception) -> CorruptDataError:
    return CorruptDataError(f"{path}: damaged, {first_line(error)}")
