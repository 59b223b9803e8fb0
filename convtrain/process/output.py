"""Where a command prints and draws: streams that never end a training, figures in files."""

import io
import os
import sys
import traceback

from convtrain.errors import ConvtrainError


def prepare_output() -> None:
    """Prepare this process to print and to draw, whatever has started it."""
    keep_output_open()
    os.environ["MPLBACKEND"] = "agg"  # a notebook's is often not installed for the command


def keep_output_open() -> None:
    """Let no training fail because nobody reads what it prints.

    Once a pipe has lost its reader, a terminal is closed or a disk is full, later output is
    dropped. A stream that was closed before the process started goes to ``/dev/null``; otherwise
    the next file that is opened would take its place. Characters that the encoding lacks are
    escaped. Streams that other code has replaced stay as they are.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
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


class _Lasting(io.FileIO):
    """Accepts every write, and drops what it cannot write."""

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(data) or 0
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def print_error(error: ConvtrainError) -> None:
    """Show an error's lines, or its traceback if ``HYDRA_FULL_ERROR=1`` asks for it."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    else:
        print(error, file=sys.stderr)
