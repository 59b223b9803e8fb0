"""A checkpoint that somebody with bad intentions has made, checksum and all."""

import hashlib
from pathlib import Path
from typing import Any

import torch


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


def forge(content: Any, path: Path) -> Path:
    """Write what convtrain refuses to write, as a file that is sound by its checksum."""
    torch.save(content, path)
    comment_size = len("convtrain sha256 ") + 64
    archive = path.read_bytes()[:-2] + comment_size.to_bytes(2, "little")
    digest = hashlib.sha256(archive).hexdigest()
    path.write_bytes(archive + f"convtrain sha256 {digest}".encode())
    return path
