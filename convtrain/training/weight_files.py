"""Files of weights: download them once for all processes, read them without executing them."""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from convtrain.errors import CorruptDataError, MissingDataError, OccupiedError, few, first_line
from convtrain.process.lock import locked
from convtrain.training.checkpoint_file import (
    CHUNK_BYTES,
    code_in,
    has_checksum,
    load_checkpoint,
)

log = logging.getLogger("convtrain")

INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys at which a training script's checkpoint holds the tensors."""


def downloaded(url: str, where: str) -> Path:
    """Return the file of an address in the folder of ``torch.hub``, and download it if need be.

    One process downloads it, and others that want it wait. A name such as ``resnet18-f37072fd.pth``
    has the beginning of the file's SHA-256, which is compared.

    Args:
        where: the override that names the weights, for errors.

    Raises:
        MissingDataError: the file is not there, and cannot be downloaded.
        CorruptDataError: the file is there, but is not the one that was published.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        try:
            with locked(folder, waits=True):
                if not path.is_file():
                    log.info("downloading %s to %s", url, folder)
                    torch.hub.download_url_to_file(url, str(path), _digits(path), progress=False)
        except (OSError, RuntimeError, OccupiedError) as error:  # RuntimeError: another hash
            raise MissingDataError(
                f"{where}: {path.name} is not in {folder} and cannot be downloaded "
                f"({first_line(error)}); get {url} and put it there"
            ) from None
    return path


def refuse_other_content(path: Path, sha256: str) -> None:
    """Raise CorruptDataError unless a file's hash begins as the file's name says."""
    if (expected := _digits(path)) is not None and not sha256.startswith(expected):
        raise CorruptDataError(
            f"{path}: damaged, its SHA-256 begins with {sha256[:8]}, and its name says {expected}; "
            f"delete it, and the next run downloads it again"
        )


def _digits(path: Path) -> str | None:
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found[1] if found else None


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content; CorruptDataError if it cannot be read."""
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()
    except OSError as error:
        raise CorruptDataError(f"{path}: cannot be read, {error.strerror}") from error


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of the names and bytes of tensors whose file is not known."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, on the CPU, without executing anything in it.

    It may be a safetensors file, or what ``torch.save`` has made of a ``state_dict``, of a
    Lightning checkpoint, or of a dictionary that holds one at a key of ``INSIDE``.

    Raises:
        CorruptDataError: it is damaged, or holds more than tensors and plain containers.
    """
    loaded = _read(path)
    for key in INSIDE:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise CorruptDataError(
            f"{path}: holds a {type(loaded).__name__}, not tensors by name; save a state_dict()"
        )
    found = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not found:
        raise CorruptDataError(
            f"{path}: holds no tensors by name, at its top or at {', '.join(INSIDE)}; it has "
            f"{few(map(str, loaded)) or 'nothing'}; save a state_dict()"
        )
    return found


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if not has_checksum(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a forged file can raise any exception in a reader
        reason = "it is damaged, or was not written as its name says"
        if (code := code_in(error)) is not None:  # torch advises to execute it
            reason = f"it holds {code}, which is code; save the model's state_dict() alone"
        raise CorruptDataError(f"{path}: refused, {reason}") from None
    return load_checkpoint(path)
