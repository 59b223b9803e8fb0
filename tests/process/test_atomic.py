"""Files that are the old or the new, and what is said when the disk is full."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from convtrain.errors import ConfigError, TrainingError
from convtrain.process.atomic import (
    atomic_write,
    comes_from_full_disk,
    hard_link,
    line_on_full_disk,
)


def test_a_file_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as writer:
        writer.write(b"half")
        assert not path.exists()
        writer.write(memoryview(b" and half"))
    assert path.read_bytes() == b"half and half"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_be_written_at_all_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrainingError, match=r"file/a\.txt: not written, not a directory; what"),
        atomic_write(tmp_path / "file" / "a.txt") as writer,
    ):
        writer.write(b"text")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_second_name_has_the_same_content(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"new")
    (tmp_path / "older.ckpt").write_bytes(b"to be replaced")
    for _ in range(2):
        hard_link(path, "older.ckpt")
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
            "last.ckpt": b"new",
            "older.ckpt": b"new",
        }
    assert path.samefile(tmp_path / "older.ckpt") == links


def raised(error: Exception, while_handling: Exception | None = None) -> Exception:
    try:
        try:
            if while_handling is not None:
                raise while_handling
        finally:
            raise error
    except Exception as caught:
        return caught


def test_a_full_disk_is_told_from_other_errors() -> None:
    full, other = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "broken")
    line = "run: the disk is full, nothing more can be written: No space left on device"
    assert line_on_full_disk(full, Path("run")) == line
    assert line_on_full_disk(raised(ValueError("logger"), full), Path("run")) == line
    assert line_on_full_disk(raised(full, TrainingError("last.ckpt")), Path("run")) == "last.ckpt"
    assert line_on_full_disk(raised(other, ValueError()), Path("run")) is None
    assert comes_from_full_disk(raised(full, TrainingError("last.ckpt")))
    assert not comes_from_full_disk(raised(other, TrainingError("step 3")))


def test_an_error_that_was_raised_twice_is_no_endless_chain() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert line_on_full_disk(first, Path("run")) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is a device or a pipe"), atomic_write(path):
        pass
    assert path.is_fifo()
