"""A process that prints goes on, whoever has stopped listening."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import os, sys
from convtrain.process.output import keep_output_open
keep_output_open()
for _ in range(3):
    print("caf\\u00e9 \\udce9" + "x" * 100_000, flush=True)
    print("error", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    file.write("done")
sys.exit(5)
"""
COMMANDS = {
    "a reader that goes away": "%s | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}",
    "a reader that has gone": "%s | true; exit ${PIPESTATUS[0]}",
    "standard output closed": "%s >&-",
    "both closed": "%s >&- 2>&-",
    "all closed": "%s <&- >&- 2>&-",
    "a full disk": "%s > /dev/full",
    "errors to a full disk": "%s 2> /dev/full > /dev/null",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path, command: str) -> None:
    done = tmp_path / "done"
    shown = f'"{sys.executable}" -c \'{SCRIPT}\' "{done}"'
    process = subprocess.run(
        ["bash", "-c", COMMANDS[command] % shown], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert process.returncode == 5, process.stderr
    assert done.read_text() == "done"
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "done")], cwd=REPOSITORY,
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
    )  # fmt: skip
    expected = "café" if encoding != "ascii" else "caf\\xe9"
    assert done.returncode == 5
    assert done.stdout.startswith(f"{expected} \\udce9x".encode(encoding))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("%s > /dev/full", 1, "standard output: not written: No space left on device\n"),
        ("%s | true; exit ${PIPESTATUS[0]}", 0, ""),
    ],
    ids=["full", "gone"],
)
def test_a_file_that_does_not_fit_is_a_failure(command: str, status: int, said: str) -> None:
    """``convtrain code RUN > net.py`` on a full disk."""
    shown = f'"{sys.executable}" -m convtrain code network=lenet data=mnist'
    process = subprocess.run(
        ["bash", "-c", command % shown], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr) == (status, said)
