"""What is printed is typed again, into a real shell, from a wheel and from a clone."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from tests.conftest import REPOSITORY
from tests.test_installed import environment, wheel  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow

MINE = """# @package _global_
# A training that takes no time.
data: {limit: 64, root: images}
trainer: {accelerator: cpu, max_epochs: 1}
callbacks: {progress_bar: false}
"""
NAMED = ("look at it", "its gradients", "train longer", "the other style")


class Shell:
    """A shell in a folder of its own, in which an environment is activated or not."""

    def __init__(self, folder: Path, environment: Path, *, activated: bool) -> None:  # noqa: F811
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        path = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if "venv" not in p)
        binaries = f"{environment / 'bin'}{os.pathsep}" if activated else ""
        self.environ = {**kept, "PATH": f"{binaries}{path}", "OMP_NUM_THREADS": "1"}
        file = folder / "c d" / "experiment" / "mine.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(MINE)

    def __call__(self, line: str, status: int = 0, inside: str = ".") -> str:
        """Return what a line prints."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder / inside, capture_output=True, text=True,
            env=self.environ,
        )  # fmt: skip
        assert done.returncode == status, (line, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def paste_report(self, printed: str) -> str:
        """Type each command of a report; return what the last one prints."""
        for name in NAMED:
            (command,) = re.findall(rf"^{name} +(\S.*)$", printed, re.MULTILINE)
            last = self(f"{command} --inspect" if name == NAMED[0] else command)
        return last

    def paste_rows(self, printed: str, inside: str = ".") -> int:
        """Type each row of a sweep's table; return how many there are."""
        rows = re.findall(r"^ +\d+  ((?:cd|\S*python|\S*convtrain) .*)$", printed, re.MULTILINE)
        for row in rows:
            self(f"{row} hydra.run.dir=row hydra.sweep.dir=rows", inside=inside)
            for folder in self.folder.rglob("row*"):
                shutil.rmtree(folder)
        return len(rows)


def check_reports(shell: Shell, train: str) -> None:
    """Type what a run and a resumed run print."""
    typed = "'hydra.run.dir=\"r [1], é\"' 'data.classes=[a b,\"c, d\",e,f,g,h,i,j,k,l]'"
    printed = shell(f"{train} --config-dir 'c d' experiment=mine {typed}")
    assert "run directory  logs/runs/mine/" in shell.paste_report(printed)
    printed = shell(f"{train} 'resume=\"r [1], é\"' trainer.max_epochs=3")
    assert "steps, epochs  3, 3" in printed
    assert "steps, epochs  3, 3" in shell.paste_report(printed)


def check_page(shell: Shell, train: str) -> None:
    """Type the commands on the page of a run, for which there is an image to predict."""
    shell(f"{train} --config-dir 'c d' experiment=mine 'hydra.run.dir=\"r &amp; <b>\"'")
    PIL.Image.new("L", (8, 8)).save(shell.folder / "image.png")
    page = (shell.folder / "r &amp; <b>" / "report.html").read_text()
    typed = re.findall(r'<div class="command">.*?<code>(.*?)</code>', page)
    assert len(typed) == 5
    for line in typed:
        shell(html.unescape(line))


def check_rows(shell: Shell, train: str, verb: str) -> None:
    """Type the rows of a sweep, here and in another folder, and what an unfinished job needs."""
    chosen = "experiment=mine recorder=off seed=1,2 optimizer.lr=0.1,0.2 hydra.sweep.dir=sweep"
    assert shell.paste_rows(shell(f"{train} -m --config-dir 'c d' {chosen}")) == 2
    (shell.folder / "else where").mkdir()
    rows = shell(f"{verb} sweep ../sweep", inside="else where")
    assert shell.paste_rows(rows, inside="else where") == 2
    unfinished = shell.folder / "sweep" / "unfinished"
    (job,) = (shell.folder / "sweep").glob("lr-0.1_seed-1_*")
    shutil.copytree(job, unfinished)
    (unfinished / "result.json").unlink()
    refused = shell(f"{verb} rerun ../sweep/unfinished", status=2, inside="else where")
    shell(refused.partition("resume it: ")[2].strip(), inside="else where")
    assert (unfinished / "result.json").is_file()


def check_hints(shell: Shell, train: str, verb: str) -> None:
    """Type the commands that error lines name."""
    for wrong in (f"{train} --cfg", f"{verb} check -p", f"{verb} export", f"{verb} layers Conv9"):
        said = shell(wrong, status=2)
        hint = re.search(r"; '?([^';]+?)'? (?:shows what can be typed|lists them all)$", said)
        assert hint, said
        shell(hint[1])


def test_a_wheel_in_an_activated_environment(environment: Path, tmp_path: Path) -> None:  # noqa: F811
    shell = Shell(tmp_path / "p", environment, activated=True)
    check_reports(shell, "convtrain train")
    check_rows(shell, "convtrain train", "convtrain")
    check_hints(shell, "convtrain train", "convtrain")


def test_a_wheel_by_python_m_and_a_path(environment: Path, tmp_path: Path) -> None:  # noqa: F811
    shell = Shell(tmp_path / "p", environment, activated=False)
    program = f"{environment / 'bin' / 'python'} -m convtrain"
    check_reports(shell, f"{program} train")
    check_hints(shell, f"{program} train", program)


def test_the_page_of_a_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "p", tmp_path, activated=False)
    check_page(shell, f"{sys.executable} {REPOSITORY / 'train.py'}")


def test_a_clone_that_is_not_installed(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "p", tmp_path, activated=False)
    train = f"{sys.executable} {REPOSITORY / 'train.py'}"
    verb = f"env PYTHONPATH={REPOSITORY} {sys.executable} -m convtrain"
    check_reports(shell, train)
    check_rows(shell, train, verb)
    check_hints(shell, train, verb)
