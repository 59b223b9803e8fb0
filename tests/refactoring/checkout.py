"""The code of a commit beside the working tree, and how a command runs with it."""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.refactoring import golden

REPOSITORY = Path(__file__).resolve().parents[2]


class BrokenCodeError(Exception):
    """A version of the code does not do what the comparison needs of it."""


@dataclass(frozen=True)
class Code:
    """A version of the code: a folder that holds ``train.py``, ``convtrain`` and ``configs``."""

    name: str
    folder: Path

    def run(
        self, *words: str | Path, cwd: Path, expect: int | None = 0, typed: str = ""
    ) -> tuple[int, str]:
        """Run ``python WORDS`` with this version; return the exit status and what it printed.

        Args:
            words: the command line.
            cwd: where it runs.
            expect: the exit status; None for any.
            typed: what it reads from its standard input.

        Raises:
            BrokenCodeError: the status is not the expected one.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "PYTHON"))}
        environment = {
            "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
            "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=cwd, env={**kept, **environment},
            input=typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if expect is not None and done.returncode != expect:
            command = " ".join(map(str, words))
            raise BrokenCodeError(
                f"{self.name}: status {done.returncode} of {command}\n{done.stdout}"
            )
        return done.returncode, done.stdout

    def train(self, name: str, run_dir: Path) -> None:
        """Train a golden run; ``killed`` is ended by SIGKILL, ``sweep`` trains four jobs."""
        typed = golden.command(name)
        where = f"hydra.{'sweep' if name == 'sweep' else 'run'}.dir={run_dir}"
        words: list[str | Path] = [self.folder / "train.py", *typed, where]
        if name == "killed":
            script = Path(__file__).parent / "kill_at_step.py"
            words[:0] = [script, str(golden.KILLED_AT)]
        self.run(*words, cwd=run_dir.parent, expect=-9 if name == "killed" else 0)

    def check(self) -> None:
        """Make sure that Python imports this version, whatever is installed.

        Raises:
            BrokenCodeError: it imports another one.
        """
        with tempfile.TemporaryDirectory() as elsewhere:
            code = "import convtrain; print(convtrain.__file__)"
            _, said = self.run("-c", code, cwd=Path(elsewhere))
        if Path(said.strip()).parents[1] != self.folder:
            raise BrokenCodeError(f"{self.name}: Python imports {said.strip()}, not {self.folder}")


def code_of(commit: str | None, cache: Path) -> Code:
    """Return the code of a commit, unpacked into the cache; that of the working tree for None."""
    if commit is None:
        code = Code("working tree", REPOSITORY)
    else:
        code = Code(commit[:10], cache / commit / "code")
        if not code.folder.is_dir():
            packed = subprocess.check_output(
                ["git", "-C", str(REPOSITORY), "archive", "--format=zip", commit]
            )
            with appearing_whole(code.folder) as part:
                zipfile.ZipFile(io.BytesIO(packed)).extractall(part)
    code.check()
    return code


def full_hash(revision: str) -> str:
    """Return a commit's full hash, or end the command with a line."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError:
        sys.exit(f"{revision}: no such commit; type BASE=COMMIT")


def default_base() -> str:
    """Return where this branch left ``main``; HEAD on ``main`` itself, or where there is none."""
    try:
        return git("merge-base", "HEAD", "main")
    except subprocess.CalledProcessError:
        return git("rev-parse", "HEAD")


def git(*words: str) -> str:
    return subprocess.check_output(["git", "-C", str(REPOSITORY), *words], text=True).strip()


def cache_folder() -> Path:
    """Return where code and golden runs of commits are kept, a folder a commit."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "convtrain" / "same"


def setting() -> str:
    """Return a name for the machine and the versions that the bits of a run depend on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    model = next((line for line in lines if "model name" in line), platform.processor())
    versions = [version(name) for name in ("torch", "torchvision", "pytorch-lightning", "numpy")]
    here = (platform.python_version(), platform.machine(), model, versions)
    return digest(repr(here))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@contextmanager
def appearing_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which gets its name only if nothing fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
