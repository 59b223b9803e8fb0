"""The files of a run. ``result.json`` is written last: where it stands, the run is finished."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from convtrain.errors import MissingDataError, TrainingError
from convtrain.files import sweep_strays, written_whole


class RunDirectory:
    """The layout of a run's directory, and how each of its records is written and read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.overrides = self.path / "overrides.yaml"
        self.provenance = self.path / "provenance.json"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.result = self.path / "result.json"
        self.error = self.path / "error.txt"

    def begin(
        self, config: dict[str, Any], overrides: Sequence[str], provenance: dict[str, Any]
    ) -> None:
        """Write down what is about to run; a result or an error of before is withdrawn."""
        for stale in (self.result, self.error):
            stale.unlink(missing_ok=True)
        sweep_strays(self.checkpoints, ".ckpt")
        write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        write_atomically(self.overrides, yaml.safe_dump(list(overrides)))
        write_atomically(self.provenance, json.dumps(provenance, indent=2) + "\n")

    def announce(self, config: dict[str, Any], overrides: Sequence[str]) -> None:
        """Write down what a job is, before anything of it can fail.

        What another training has left here is taken away, so that nothing goes on from it.
        """
        for stale in (self.result, self.error, *self.checkpoints.glob("*.ckpt")):
            stale.unlink(missing_ok=True)
        write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        write_atomically(self.overrides, yaml.safe_dump(list(overrides)))

    def finish(self, result: dict[str, Any]) -> None:
        write_atomically(self.result, json.dumps(result, indent=2) + "\n")

    def fail(self, message: str, overrides: Sequence[str] = ()) -> None:
        with suppress(TrainingError):  # a full disk may be the very reason
            if not self.overrides.is_file():
                write_atomically(self.overrides, yaml.safe_dump(list(overrides)))
            write_atomically(self.error, message.rstrip() + "\n")

    def read_result(self) -> dict[str, Any] | None:
        """Return the result, or None where the run is not finished."""
        return json.loads(self.result.read_text()) if self.result.is_file() else None

    def finished_result(self) -> dict[str, Any]:
        """Return the result of a run that is to be compared with another.

        Raises:
            MissingDataError: the run is not finished.
        """
        if (result := self.read_result()) is None:
            raise MissingDataError(
                f"{self.path}: is not finished, so there is nothing to compare with; "
                f"python train.py resume={self.path} goes on with it"
            )
        return result

    def read_error(self) -> str | None:
        """Return why the run failed, or None where it did not."""
        return self.error.read_text().strip() if self.error.is_file() else None

    def read_overrides(self) -> list[str]:
        return yaml.safe_load(self.overrides.read_text()) if self.overrides.is_file() else []


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, at whatever moment, finds the old or the new text."""
    with written_whole(path) as sink:
        sink.write(text.encode())
