"""The keys of Hydra's node that become paths: they stay where they belong, and can be made."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from convtrain.config.messages import Mistake

LONGEST_NAME = 240  # bytes of a file's name, with room for ".rank1.log" below the usual 255


def path_mistakes(hydra: dict[str, Any]) -> Iterator[Mistake]:
    """Yield the paths that leave the directory of the run, or of the sweep.

    Args:
        hydra: the resolved node, in plain containers.
    """
    for key in ("job.name", "output_subdir", "sweep.subdir"):
        text = _at(hydra, key)
        if text is not None and leaves_folder(str(text)):
            yield Mistake(f"hydra.{key}", "must stay inside the run's directory")
        elif any(len(os.fsencode(part)) > LONGEST_NAME for part in PurePath(str(text)).parts):
            yield Mistake(f"hydra.{key}", f"must be a name of at most {LONGEST_NAME} bytes")
    if "/" in (name := str(hydra["job"].get("name"))) and not leaves_folder(name):
        yield Mistake("hydra.job.name", "must be a name without /: log files are called by it")
    if (subdir := hydra.get("output_subdir")) is not None and not PurePath(str(subdir)).parts:
        yield Mistake("hydra.output_subdir", "must be a folder of its own, such as .hydra")
    sweep = str(hydra["sweep"].get("dir"))
    submitted = (hydra.get("launcher") or {}).get("submitit_folder")
    if submitted is not None and (
        not str(submitted).startswith(f"{sweep}/")
        or leaves_folder(str(submitted).removeprefix(f"{sweep}/"))
    ):
        yield Mistake(
            "hydra.launcher.submitit_folder",
            "must lie in the sweep's directory, for what is read back from it runs as code: "
            "${hydra.sweep.dir}/.submitit/%j",
        )


def folder_mistakes(hydra: dict[str, Any]) -> Iterator[Mistake]:
    """Yield the folders that cannot be made, for a command that would write there."""
    for key in ("run.dir", "sweep.dir", "launcher.temp_folder"):
        folder = _at(hydra, key)
        if folder is not None and (reason := _unwritable(Path(str(folder)))) is not None:
            yield Mistake(f"hydra.{key}", f"{str(folder)[:200]} cannot be a directory: {reason}")


def _unwritable(folder: Path) -> str | None:
    """Return why a folder cannot be made, or None; tried out where it would stand."""
    try:
        existing = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
        if not existing.is_dir():
            return f"{existing} is a file"
        Path(tempfile.mkdtemp(prefix=".convtrain-check-", dir=existing)).rmdir()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def leaves_folder(text: str) -> bool:
    """Tell whether a path leads out of the folder that it is relative to."""
    return ".." in PurePath(text).parts or PurePath(text).is_absolute() or "\0" in text


def _at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain
