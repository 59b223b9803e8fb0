"""A shell for the commands of the documentation; its ``convtrain`` is the code of this clone."""

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

from docs.generate import DOCS

SCRIPT = """#!{python}
import sys

sys.path.insert(0, {home!r})
from convtrain.__main__ import main

sys.exit(main())
"""


class Shell:
    """Runs commands in a folder, as a user with an activated environment would.

    Args:
        folder: the working directory of the commands.
        tools: a folder outside of it, for the script ``convtrain``.
    """

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        tools.mkdir(parents=True)
        script = tools / "convtrain"
        script.write_text(SCRIPT.format(python=sys.executable, home=str(DOCS.parent)))
        script.chmod(0o755)
        paths = [str(tools), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        self.environment = {**os.environ, "PATH": os.pathsep.join(paths), "TERM": "xterm-256color"}

    def run(self, command: str) -> str:
        """Return what a command prints, both streams together."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout

    def start(self, command: str) -> "subprocess.Popen[str]":
        """Start a program whose standard error is read from a pipe."""
        return subprocess.Popen(
            shlex.split(command), cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run_in_terminal(self, command: str, *, columns: int, rows: int = 50) -> str:
        """Return what a command writes to a terminal, with its control sequences."""
        terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self.folder, env=self.environment,
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        written = b""
        try:
            while more := os.read(terminal, 1 << 16):
                written += more
        except OSError:  # the command has ended
            pass
        os.close(terminal)
        process.wait()
        return written.decode()
