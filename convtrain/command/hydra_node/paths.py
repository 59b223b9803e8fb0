"""Checks of the paths in Hydra's node: they stay in their folders, and can be made."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath

from convtrain.config.dotted import value_at
from convtrain.config.mistakes import Mistake

MAX_NAME_BYTES = 240  # leaves room for ".rank1.log" below the usual 255


def leaves_folder(text: str) -> bool:
    """Tell whether a path leads out of the folder that it is relative to."""
    return ".." in PurePath(text).parts or PurePath(text).is_absolute() or "\0" in text


def searchpath_mistakes(folders: object) -> Iterator[Mistake]:
    """Yield the entries of ``hydra.searchpath`` that are no folder; ``pkg://`` would run code."""
    if folders is not None and not isinstance(folders, list):
        yield Mistake("hydra.searchpath", "must be a list: [file:///FOLDER]")
        return
    for index, folder in enumerate(folders or ()):
        key = f"hydra.searchpath.{index}"
        scheme, separator, path = str(folder).partition("://")
        if str(folder).strip().startswith(("pkg:", "structured:")):
            yield Mistake(key, "would import a package; name a folder: file:///FOLDER")
        elif separator and scheme != "file":
            yield Mistake(key, "must be a folder: file:///FOLDER")
        elif not isinstance(folder, str) or not Path(path if separator else folder).is_dir():
            yield Mistake(key, "no such folder")


def path_mistakes(hydra: object) -> Iterator[Mistake]:
    """Yield the paths that leave the directory of the run or of the sweep."""
    for key in ("job.name", "output_subdir", "sweep.subdir"):
        text = value_at(hydra, key, None)
        if text is not None and leaves_folder(str(text)):
            yield Mistake(f"hydra.{key}", "must stay inside the run's directory")
        elif any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in PurePath(str(text)).parts):
            yield Mistake(f"hydra.{key}", f"must be a name of at most {MAX_NAME_BYTES} bytes")
    if "/" in (name := str(value_at(hydra, "job.name"))) and not leaves_folder(name):
        yield Mistake("hydra.job.name", "must be a name without /: log files are called by it")
    subdir = value_at(hydra, "output_subdir", None)
    if subdir is not None and not PurePath(str(subdir)).parts:
        yield Mistake("hydra.output_subdir", "must be a folder of its own, such as .hydra")
    sweep = f"{value_at(hydra, 'sweep.dir')}/"
    submitted = value_at(hydra, "launcher.submitit_folder", None)
    if submitted is not None and (
        not str(submitted).startswith(sweep) or leaves_folder(str(submitted).removeprefix(sweep))
    ):
        yield Mistake(
            "hydra.launcher.submitit_folder",
            "must be in the sweep's directory, for what is read back from it runs as code: "
            "${hydra.sweep.dir}/.submitit/%j",
        )


def folder_mistakes(hydra: object) -> Iterator[Mistake]:
    """Yield the folders that cannot be made."""
    for key in ("run.dir", "sweep.dir", "launcher.temp_folder"):
        folder = value_at(hydra, key, None)
        if folder is not None and (reason := _unwritable(Path(str(folder)))) is not None:
            yield Mistake(f"hydra.{key}", f"{str(folder)[:200]} cannot be a directory: {reason}")


def _unwritable(folder: Path) -> str | None:
    """Return why a folder cannot be made, or None, by making one in its closest parent."""
    try:
        existing = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
        if not existing.is_dir():
            return f"{existing} is a file"
        Path(tempfile.mkdtemp(prefix=".convtrain-check-", dir=existing)).rmdir()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
