"""What the command says: the composed configuration of each choice, the lines of each mistake.

As a script, ``python texts.py FOLDER OUT`` reads commands as JSON from its standard input, runs
each with the ``train.py`` of FOLDER, in a fork of one process, and writes what they say to OUT.
"""

import gc
import io
import json
import os
import runpy
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SECONDS = 10


def commands() -> list[list[str]]:
    """Return what is typed: every choice of every group, and the mistakes that the tests know.

    What names a file of this repository is left out, since another version is in another folder.
    """
    here = str(Path(__file__).resolve().parents[2])
    return [[word for word in words if here not in word] for words in (*_choices(), *_mistakes())]


def _choices() -> Iterator[list[str]]:
    folder = Path(__file__).resolve().parents[2] / "configs"
    yield ["--cfg", "job"]
    for file in sorted(folder.glob("*/**/*.yaml")):
        if not file.name.startswith("_"):
            yield [f"{file.parent.relative_to(folder)}={file.stem}", "--cfg", "job"]


def _mistakes() -> Iterator[list[str]]:
    from tests.command import test_arguments, test_configure, test_hydra_keys, test_one_line
    from tests.config import test_advice

    for overrides, _ in (
        *test_configure.WRONG.values(),
        *test_configure.ALONE.values(),
        *test_hydra_keys.ONE_LINE.values(),
    ):
        yield list(overrides)
    yield list(test_configure.MANY.values())
    for mistakes in test_configure.TOGETHER.values():
        yield [override for override, _ in mistakes]
    yield ["-m", *test_configure.SWEEPS, "seed=x"]
    for typed in (*test_one_line.LINES, *test_advice.ADVICE):
        yield shlex.split(typed)
    for typed in test_arguments.UNREADABLE:
        yield [typed]


def say_all(folder: Path, commands: Sequence[list[str]]) -> dict[str, str]:
    """Run each command in a fork of this process; return exit status and output by command.

    A command that goes on for longer than SECONDS is no mistake to this version, and is ended.

    Raises:
        SystemExit: ``train.py`` cannot be imported.
    """
    train = str(folder / "train.py")
    runpy.run_path(train, run_name="loaded")  # all that it imports is then here
    gc.freeze()
    return {shlex.join(words): _say(train, words, str(folder)) for words in commands}


def _say(train: str, words: Sequence[str], folder: str) -> str:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb"), "utf-8") for n in (1, 2))
        sys.argv = [train, *words]
        signal.alarm(SECONDS)
        status = 1
        try:
            runpy.run_path(train, run_name="__main__")
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"status {status}\n{said.replace(folder, 'FOLDER')}"


if __name__ == "__main__":
    said = say_all(Path(sys.argv[1]), json.load(sys.stdin))
    Path(sys.argv[2]).write_text(json.dumps(said))
