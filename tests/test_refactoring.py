"""``make same`` and ``make moves`` see what they are there for."""

import shutil
from pathlib import Path

import pytest
import torch

from convtrain.training.checkpoint_file import save_checkpoint
from tests.conftest import compose, slow_but
from tests.refactoring import golden, same, texts
from tests.refactoring.bits import differences
from tests.refactoring.checkout import REPOSITORY, Code
from tests.refactoring.moves import compare
from tests.run.test_before import copied


@pytest.mark.parametrize("name", slow_but(golden.names(), "killed", "max_steps", "sweep"))
def test_a_golden_run_is_a_configuration(name: str) -> None:
    words = [word for word in golden.command(name) if word != "-m"]
    compose(*(word.split(",")[0] if name == "sweep" else word for word in words))


def turn_bit(run: Path) -> None:
    file = run / "checkpoints" / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    moment = saved["optimizer_states"][0]["state"][0]["momentum_buffer"]
    moment.view(torch.int32)[0] ^= 1
    save_checkpoint(saved, file)


def replace(name: str, old: str, new: str, run: Path) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))


def drop_part(run: Path) -> None:
    next((run / "gradients" / "steps").iterdir()).unlink()


CHANGES = {
    "a bit of the optimiser": (turn_bit, "checkpoint: 1 of "),
    "a metric": (
        lambda run: replace("result.json", '"steps": 8', '"steps": 9', run),
        "result.json: 1 of ",
    ),
    "a curve": (lambda run: replace("metrics.csv", "\n8,", "\n9,", run), "metrics.csv: 1 of "),
    "the record": (drop_part, "gradients/steps: "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_in_two_runs_is_found(change: str, tmp_path: Path) -> None:
    original, run = (copied("digits_functional", tmp_path / name) for name in ("first", "second"))
    assert differences(original, run) == []
    alter, says = CHANGES[change]
    alter(run)
    (line,) = differences(original, run)
    assert line.startswith(says)


BEFORE = '''
import os
LIMIT = 3
class A(B):
    """Doc."""
    x: int = 1
    def f(self):
        """Doc."""
        from convtrain.runs import g
        return g(self.x)
def h():
    return LIMIT
'''
MOVES = {
    "nothing": (BEFORE, []),
    "docstring": (BEFORE.replace("Doc.", "Another."), []),
    "room of an import": (BEFORE.replace("convtrain.runs", "convtrain.run"), []),
    "order": (BEFORE + "import sys\n", []),
    "method": (BEFORE.replace("g(self.x)", "g(self.y)"), ["A.f"]),
    "attribute": (BEFORE.replace("x: int = 1", "x: int = 2"), ["A"]),
    "base class": (BEFORE.replace("A(B)", "A(C)"), ["A"]),
    "constant": (BEFORE.replace("LIMIT = 3", "LIMIT = 4"), ["LIMIT"]),
    "name": (BEFORE.replace("def h", "def i"), ["h", "i"]),
    "copy": (BEFORE + "def h():\n    return LIMIT\n", ["h"]),
}


@pytest.mark.parametrize("change", MOVES)
def test_a_move_is_told_from_a_change(change: str) -> None:
    after, names = MOVES[change]
    pieces = after.split("def h")  # into two files
    modules = [pieces[0], *("def h" + piece for piece in pieces[1:])]
    assert [name for name, *_ in compare([BEFORE], modules)] == names


def test_the_texts_are_those_of_every_choice_and_many_mistakes() -> None:
    typed = [" ".join(words) for words in texts.commands()]
    assert "network=lenet --cfg job" in typed
    assert "hydra/launcher=local_gpus --cfg job" in typed
    assert sum("--cfg job" not in each for each in typed) > 100


@pytest.mark.slow
def test_another_random_number_is_reported(tmp_path: Path) -> None:
    """The code of the working tree, and a copy whose dropout draws other numbers."""
    copy = tmp_path / "code"
    for name in ("convtrain", "configs"):
        shutil.copytree(REPOSITORY / name, copy / name)
    shutil.copy(REPOSITORY / "train.py", copy)
    seeding = "default_generator.manual_seed(seed)"
    (source,) = (p for p in copy.rglob("*.py") if seeding in p.read_text())
    source.write_text(source.read_text().replace(seeding, f"{seeding[:-1]} + 1)"))
    code = {"base": Code("base", REPOSITORY), "new": Code("new", copy)}
    found = {}
    for name, new in code.items():
        new.check()
        (tmp_path / name).mkdir()
        comparison = same.Comparison(code["base"], new, tmp_path / "kept", tmp_path / name)
        comparison.train_base("lenet")
        (row,) = comparison.compare("lenet")
        found[name] = row.found
    assert found["base"] == []
    assert found["new"][:2] == ["rerun ends with status 1:", "not the same bits:"]
    assert [line for line in found["new"] if line.startswith("checkpoint: ")]
