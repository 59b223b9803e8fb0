"""The words with which a user starts convtrain again, however they started it."""

import ast
import sys
from pathlib import Path

import pytest

from convtrain import program
from convtrain.run.commands import train_command, verb_command
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "convtrain"
MODULE = "{home}/convtrain/__main__.py"
# Where the code is, sys.argv[0], whether the environment is activated, and what is printed for a
# training and for a verb, in a folder that is not the clone.
WAYS = {
    "the console script of a wheel": (
        "wheel", "{bin}/convtrain", True, "convtrain train a=1", "convtrain gradients r",
    ),
    "the same, by its path": (
        "wheel", "{bin}/convtrain", False, "{bin}/convtrain train a=1",
        "{bin}/convtrain gradients r",
    ),
    "python -m of a wheel": (
        "wheel", MODULE, True, "python -m convtrain train a=1", "python -m convtrain gradients r",
    ),
    "a script or a notebook, with a wheel": (
        "wheel", "mine.py", True, "convtrain train a=1", "convtrain gradients r",
    ),
    "train.py of a clone": (
        "clone", "{home}/train.py", True, "python {home}/train.py a=1",
        "env PYTHONPATH={home} python -m convtrain gradients r",
    ),
    "the same, by the interpreter's path": (
        "clone", "{home}/train.py", False, "{bin}/python {home}/train.py a=1",
        "env PYTHONPATH={home} {bin}/python -m convtrain gradients r",
    ),
    "python -m of a clone on PYTHONPATH": (
        "clone", MODULE, True, "env PYTHONPATH={home} python -m convtrain train a=1",
        "env PYTHONPATH={home} python -m convtrain gradients r",
    ),
    "the console script of an editable install": (
        "editable", "{bin}/convtrain", True, "convtrain train a=1", "convtrain gradients r",
    ),
    "train.py of an editable install": (
        "editable", "{home}/train.py", True, "python {home}/train.py a=1",
        "python -m convtrain gradients r",
    ),
}  # fmt: skip


def start(
    how: str, started: str, activated: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Let the code, the environment and the command be those of a way to start convtrain."""
    binaries, home, here = folder / "env" / "bin", folder / "home", folder / "here"
    for each in (binaries, home, here):
        each.mkdir(parents=True)
    for name in ("python", *(["convtrain"] if how != "clone" else [])):
        (binaries / name).touch(mode=0o755)
    if how != "wheel":
        (home / "train.py").touch()
    monkeypatch.setattr(program, "HOME", home)
    monkeypatch.setattr(program, "TRAIN", home / "train.py")
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    elsewhere = folder / "site-packages" / "convtrain-0.1.0.dist-info"
    elsewhere.mkdir(parents=True)
    (elsewhere / "METADATA").write_text("Metadata-Version: 2.1\nName: convtrain\nVersion: 0.1.0\n")
    monkeypatch.setattr(sys, "path", [str(elsewhere.parent)] if how == "editable" else [])
    monkeypatch.setenv("PATH", str(binaries) if activated else str(here))
    monkeypatch.chdir(here)
    names = {"home": str(home), "bin": str(binaries)}
    monkeypatch.setattr(sys, "argv", [started.format(**names)])
    return names


@pytest.mark.parametrize("way", WAYS)
def test_what_is_printed_starts_convtrain_as_it_was_started(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, started, activated, training, verb = WAYS[way]
    names = start(how, started, activated, tmp_path, monkeypatch)
    assert train_command("a=1") == training.format(**names)
    assert verb_command("gradients", Path("r")) == verb.format(**names)
    hint = program.as_typed("python -m convtrain check and python train.py --help")
    words = verb.format(**names).removesuffix(" gradients r")
    assert hint == f"{words} check and {training.format(**names).removesuffix(' a=1')} --help"
    where = names["home"] if way != "a script or a notebook, with a wheel" else None
    if where and how != "wheel":
        (Path(where) / "pyproject.toml").touch()
        assert program.install("svhn") == f"pip install -e '{where}[svhn]'"
    else:
        assert program.install("svhn") == "pip install 'convtrain[svhn]'"


def test_in_the_clone_there_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for started in ("train.py", str(PACKAGE / "__main__.py"), "pytest"):
        monkeypatch.setattr(sys, "argv", [started])
        assert train_command("a=1") == "python train.py a=1"
        assert verb_command("diff", Path("r")) == "python -m convtrain diff r"
    assert program.install("sweep") == "pip install -e '.[sweep]'"


def test_a_command_that_was_typed_elsewhere_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-a b" / "conf").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    options = f"--config-dir={tmp_path / '-a b' / 'conf'}", "data.root=data"
    said = f"python {REPOSITORY / 'train.py'}"
    there = train_command(*options, cwd=tmp_path / "-a b")
    assert there == f"cd './-a b' && {said} --config-dir=conf data.root=data"
    for cwd in (tmp_path, tmp_path / "gone", None):
        assert train_command("data.root=data", cwd=cwd) == f"{said} data.root=data"


def test_under_torchrun_a_training_is_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    agent = {"TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in {**ranks, **agent, "GROUP_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    module = train_command("a=1").removeprefix("python -m torch.distributed.run")  # without script
    assert module.removeprefix("torchrun") == " --nproc-per-node 2 train.py a=1"
    monkeypatch.setenv("WORLD_SIZE", "4")  # of two machines, whose addresses nobody knows
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert train_command("a=1") == "python train.py a=1"


ADAPTED_WHERE_SHOWN = ("config/lightning_callbacks.py",)


def test_no_text_names_a_program_unless_it_is_adapted() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        adapted = {
            id(inner)
            for node in nodes
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "as_typed"
            for inner in ast.walk(node)
        }
        described = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}  # docstrings
        for node in nodes:
            if not isinstance(node, ast.Constant) or id(node) in adapted | described:
                continue
            text = node.value if isinstance(node.value, str) else ""
            if any(name in text for name in ("python -m convtrain", "train.py ")):
                found.append(f"{path.relative_to(PACKAGE)}: {text}")
    ours = (*ADAPTED_WHERE_SHOWN, "program.py")
    assert [line for line in found if not line.startswith(ours)] == []
