"""A checkpoint file: the zip archive that ``torch.save`` writes, with its SHA-256 as the comment.

The comment is the end of the file, so content and checksum appear together in one rename.
``torch.load(path, weights_only=True)`` reads the file; ``unzip -z`` shows the checksum.
"""

import hashlib
import io
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec
import torch
from torch import nn

from convtrain.errors import (
    ConfigError,
    CorruptDataError,
    MissingDataError,
    TrainingError,
    first_line,
)
from convtrain.process.atomic import Writer, atomic_write
from convtrain.run.directory import LAST

Checkpoint = dict[str, Any]
"""The content of a checkpoint: tensors and plain containers."""

PREFIX = b"convtrain sha256 "
COMMENT_BYTES = len(PREFIX) + 64
ZIP_END_BYTES = 22  # size of a zip archive's last record, which ends with the comment's length
CHUNK_BYTES = 1 << 20

RUN_ID = "run_id"
NEEDED_TO_RESUME = (
    "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "epoch",
)  # fmt: skip
RANKING = "BestCheckpoints"  # state_key of the callback that keeps the best checkpoints

SCALARS = (str, bytes, bool, int, float, complex, type(None), torch.dtype, torch.device)
CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set, torch.Size)
TENSORS = (torch.Tensor, nn.Parameter)


def save_checkpoint(checkpoint: Mapping[str, object], path: Path | str) -> None:
    """Write a checkpoint into a local file; a reader sees the complete file or none.

    Raises:
        TrainingError: it holds more than tensors and plain containers, or the disk is full.
        ConfigError: ``path`` is not local.
    """
    if _is_remote(path):
        raise ConfigError(f"{path}: checkpoints are written into local folders only")
    for name, kind in _foreign(checkpoint, ""):
        raise TrainingError(
            f"{path}: not written, {name} is a {kind.__module__}.{kind.__qualname__}; a checkpoint "
            f"holds tensors and plain containers only: store a str, a number, a list or a dict"
        )
    with atomic_write(Path(path)) as writer:
        archive = _Archive(writer)
        torch.save(checkpoint, archive)  # type: ignore[arg-type]  # it calls write() alone
        archive.finish()


def load_checkpoint(path: Path | str, map_location: str | torch.device = "cpu") -> Checkpoint:
    """Read and verify a checkpoint without executing anything in it.

    Args:
        path: a local file, or an address that fsspec can read.
        map_location: as for ``torch.load``; ``"meta"`` leaves the tensors' data unread.

    Raises:
        MissingDataError: there is no such file.
        CorruptDataError: it is damaged, or holds more than tensors and plain containers.
    """
    with _open(path) as file:
        try:
            _verify(file, path)
            file.seek(0)
        except OSError as error:
            raise CorruptDataError(f"{path}: cannot be read, {error.strerror}") from None
        try:
            loaded = torch.load(file, map_location=map_location, weights_only=True)
        except Exception as error:  # a forged file can raise any exception in torch's reader
            raise CorruptDataError(f"{path}: refused, {why_refused(error)}") from None
    if not isinstance(loaded, dict):
        raise CorruptDataError(f"{path}: refused, it holds a {type(loaded).__name__}, not a dict")
    return loaded


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of ``state_dict``, each of which is read from the file when it is used.

    The checksum is not compared, so this is for showing a tensor, not for training with it.

    Raises:
        MissingDataError: there is no such file.
        CorruptDataError: it is damaged, or holds more than tensors and plain containers.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except FileNotFoundError:
        raise MissingDataError(f"{path}: there is no such checkpoint") from None
    except Exception as error:  # a forged file can raise any exception in torch's reader
        raise CorruptDataError(f"{path}: refused, {why_refused(error)}") from None
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


class Found(NamedTuple):
    """A checkpoint to resume from; ``damaged`` says why each newer one cannot be used."""

    path: Path
    content: Checkpoint
    damaged: list[str]


def newest_good(folder: Path, run_id: object = None, map_location: str = "cpu") -> Found:
    """Return ``last.ckpt`` or, if it cannot be used, the usable checkpoint with the most steps.

    Checkpoints that an alarm saved are left out, because their gradients were in trouble.

    Raises:
        CorruptDataError: none can be used; the message says why for each.
    """
    damaged: list[str] = []
    others = [path for path in checkpoints_in(folder) if not path.name.startswith("alarm")]
    others.sort(key=lambda path: (-step_of(path), path.name.startswith("best")))
    for path in [folder / LAST, *others]:
        try:
            content = load_checkpoint(path, map_location)
            _refuse_unfit(content, path, run_id)
        except (CorruptDataError, MissingDataError) as error:
            damaged.append(str(error))
        else:
            return Found(path, content, damaged)
    raise CorruptDataError(f"no checkpoint of this run can be used: {'; '.join(damaged)}")


def _refuse_unfit(content: Checkpoint, path: Path, run_id: object) -> None:
    if content.get(RUN_ID) not in (None, run_id) and run_id is not None:
        raise CorruptDataError(f"{path}: is a checkpoint of another run")
    if missing := [name for name in NEEDED_TO_RESUME if name not in content]:
        raise CorruptDataError(f"{path}: incomplete, it lacks {', '.join(missing)}")
    if not content["global_step"]:
        return
    for optimizer in content["optimizer_states"] or [{}]:
        groups = optimizer.get("param_groups") or [{"betas": ()}]
        averages = any(g.get("momentum") or "betas" in g or "alpha" in g for g in groups)
        if averages and not optimizer.get("state"):
            raise CorruptDataError(f"{path}: incomplete, the optimiser's state is empty")


def best_in(folder: Path) -> Path:
    """Return the best checkpoint of a run; raise MissingDataError if it has kept none."""
    best = [path for path in checkpoints_in(folder) if path.name.startswith("best")]
    if not best:
        raise MissingDataError(f"{folder}: there is no best checkpoint")
    newest = max(best, key=step_of)  # it holds the ranking, whose changes each save a checkpoint
    ranking = load_checkpoint(newest, map_location="meta").get("callbacks", {}).get(RANKING, {})
    return folder / Path(ranking.get("best_model_path", newest)).name


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a run's checkpoints other than ``last.ckpt``."""
    return sorted(path for path in folder.glob("*.ckpt") if path.name != LAST)


def step_of(path: Path) -> int:
    """Return the optimiser step in a checkpoint's name, or -1 if there is none."""
    found = re.search(r"step(\d+)", path.stem)
    return int(found[1]) if found else -1


class _Archive:
    """Appends the checksum as a comment. The last bytes wait, because they hold its length."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._digest, self._end = writer, hashlib.sha256(), b""

    def write(self, data: memoryview) -> int:
        if len(data) >= ZIP_END_BYTES:
            self._write_hashed(self._end)
            self._write_hashed(data[:-ZIP_END_BYTES])
            self._end = bytes(data[-ZIP_END_BYTES:])
        else:
            joined = self._end + bytes(data)
            self._write_hashed(joined[:-ZIP_END_BYTES])
            self._end = joined[-ZIP_END_BYTES:]
        return len(data)

    def finish(self) -> None:
        assert self._end.startswith(b"PK\x05\x06"), "torch.save no longer ends with a zip directory"
        assert self._end.endswith(b"\0\0"), "torch.save writes a comment of its own"
        self._write_hashed(self._end[:-2] + COMMENT_BYTES.to_bytes(2, "little"))
        self._writer.write(PREFIX + self._digest.hexdigest().encode())

    def flush(self) -> None: ...

    def _write_hashed(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._writer.write(data)


def _is_remote(path: Path | str) -> bool:
    return "://" in str(path)


def _open(path: Path | str) -> BinaryIO:
    try:
        if _is_remote(path):
            with fsspec.open(str(path), "rb") as file:
                return io.BytesIO(file.read())
        return Path(path).open("rb")
    except FileNotFoundError:
        raise MissingDataError(f"{path}: there is no such checkpoint") from None
    except Exception as error:  # a remote file system may raise any exception
        raise CorruptDataError(f"{path}: cannot be read, {first_line(error)}") from None


def has_checksum(path: Path) -> bool:
    """Tell whether a file ends as convtrain's checkpoints do."""
    with path.open("rb") as file:
        file.seek(max(file.seek(0, io.SEEK_END) - COMMENT_BYTES, 0))
        return file.read().startswith(PREFIX)


def _verify(file: BinaryIO, path: Path | str) -> None:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise CorruptDataError(f"{path}: damaged, the file is empty")
    file.seek(max(size - COMMENT_BYTES, 0))
    comment = file.read()
    if size < COMMENT_BYTES or not comment.startswith(PREFIX):
        raise CorruptDataError(
            f"{path}: damaged or no checkpoint of convtrain, there is no checksum at its end"
        )
    file.seek(0)
    digest, left = hashlib.sha256(), size - COMMENT_BYTES
    while chunk := file.read(min(CHUNK_BYTES, left)):
        digest.update(chunk)
        left -= len(chunk)
    if comment != PREFIX + digest.hexdigest().encode():
        raise CorruptDataError(f"{path}: damaged, its content does not match its checksum")


def _foreign(value: object, name: str) -> Iterator[tuple[str, type]]:
    """Yield name and type of everything that is neither a tensor nor a plain container."""
    kind = type(value)
    if kind in SCALARS:
        return
    if kind not in CONTAINERS + TENSORS:
        yield name, kind
        return
    if isinstance(value, dict):
        for key, item in value.items():
            inner = f"{name}.{key}" if name else str(key)
            yield from _foreign(key, f"the key {inner}")
            yield from _foreign(item, inner)
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            yield from _foreign(item, f"{name}.{index}")
    if attributes := getattr(value, "__dict__", None):  # torch.save stores them as well
        yield from _foreign(dict(attributes), name)


def code_in(error: Exception) -> str | None:
    """Return the class or function for which ``torch.load`` has refused to execute a file."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return named and named[1]


def why_refused(error: Exception) -> str:
    if (code := code_in(error)) is not None:
        return f"it holds {code}, and a checkpoint holds tensors and plain containers only"
    if "weights_only" in first_line(error):  # its advice is to execute the file
        return "it is damaged, or was not written by torch.save"
    return first_line(error)
