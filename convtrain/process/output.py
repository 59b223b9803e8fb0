"""Output of a command: standard streams whose failure ends no training, and error lines."""

import errno
import io
import os
import sys
import traceback

from convtrain.errors import ConvtrainError, TrainingError


def keep_output_open() -> None:
    """Replace stdout and stderr by streams that drop output which they cannot write.

    Writes fail when a pipe's reader has ended, a terminal is closed or a disk is full. A descriptor
    that was closed before the process started is opened to ``/dev/null``; otherwise the next file
    that is opened would get its number. Streams that other code has replaced are left alone.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name)
        replaced = stream is not getattr(sys, f"__{name}__")
        if replaced or isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Lasting):
            continue
        encoding = "utf-8" if stream is None else stream.encoding
        lines = stream is not None and stream.line_buffering
        if stream is not None:
            stream.flush()
        raw: io.RawIOBase = _Lasting(number, "wb", closefd=False)
        lasting = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace",
            line_buffering=lines or number == 2,
        )  # fmt: skip
        setattr(sys, name, lasting)
        setattr(sys, f"__{name}__", lasting)


def print_file(text: str) -> None:
    """Print the content of a file to standard output; TrainingError says that the disk is full."""
    sys.stdout.write(text)
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Lasting) else None
    if lost is not None and lost.errno != errno.EPIPE:  # ``| head`` has read what it wants
        raise TrainingError(f"standard output: not written: {lost.strerror}")


class _Lasting(io.FileIO):
    lost: OSError | None = None  # why output was dropped

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(data) or 0
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def print_error(error: ConvtrainError) -> None:
    """Print an error's message, or its traceback if ``HYDRA_FULL_ERROR=1`` is set."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    else:
        print(error, file=sys.stderr)
