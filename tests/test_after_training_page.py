"""docs/after-training.md: its commands can be typed, its examples run, its texts are printed."""

import contextlib
import io
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from convtrain.__main__ import Parser, main, verbs_by_name
from convtrain.pipeline import train
from docs.generate.after_training import PAGE, page, write_images
from tests.conftest import QUICK, REPOSITORY, compose

TEXT = PAGE.read_text()
LINES = re.findall(r"^convtrain [^#\n]*", TEXT, flags=re.MULTILINE)
TABLE = re.findall(r"`(convtrain [^`]*)`", TEXT)
README = (REPOSITORY / "README.md").read_text()
CODE = [
    code.replace("RUN_DIRECTORY", "RUN")
    for code in re.findall(r"```python\n(.*?)```", TEXT + README, flags=re.DOTALL)
]
EXAMPLES = [code for code in CODE if "RUN" in code or "from net" in code]
FROM_A_FILE = ("onnxruntime", "from net import")  # that another command has written


def example(code: str) -> object:
    title = re.search(r"convtrain\.load\(\S*|import \S+", code)
    is_slow = any(text in code for text in FROM_A_FILE)
    marks = [pytest.mark.slow] if is_slow else []
    return pytest.param(code, marks=marks, id=title[0] if title else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, ``RUN``, and images, as the page has them."""
    place = tmp_path_factory.mktemp("page")
    train(compose(*QUICK, "callbacks.report=true", "recorder=off"), place / "RUN")
    write_images(place)
    (place / "photographs" / "broken.png").unlink()  # which only the command goes on after
    return place


@pytest.mark.parametrize("line", dict.fromkeys([*LINES, *TABLE]))
def test_a_command_can_be_typed(line: str) -> None:
    if (words := shlex.split(line)[1:])[0] == "train" or "." in words[0]:
        return
    verb = import_module(f"convtrain.verbs.{words[0]}")
    parser = Parser()
    verb.add_arguments(parser)
    chosen, rest = parser.parse_known_args([word for word in words[1:] if word != "2>"])
    rest = [word for word in rest if word != "notes.txt"]
    assert not rest or ("overrides" in chosen and not any(word.startswith("-") for word in rest))


def test_each_verb_on_a_run_is_on_the_page() -> None:
    on_a_run = {"report", "evaluate", "predict", "export", "code", "compare", "diff", "rerun"}
    named = {shlex.split(line)[1] for line in [*LINES, *TABLE]}
    assert on_a_run <= named & verbs_by_name().keys()


@pytest.mark.parametrize("code", [example(code) for code in EXAMPLES])
def test_an_example_runs(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    if "onnxruntime" in code:
        assert main(["export", "RUN", "--format", "onnx"]) == 0
    if "from net import" in code:
        assert main(["code", "RUN", "--out", "net.py", "--weights", "net.pt"]) == 0
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), {})
    sys.modules.pop("net", None)
    assert printed.getvalue() or "print(" not in code


@pytest.mark.slow
def test_the_texts_are_what_the_commands_print() -> None:
    """Times, sizes and last digits may differ."""

    def masked(text: str) -> list[str]:
        seconds = re.sub(r"\d+ (min|h) (?=\d)", "", text)
        return [re.sub(r"[\d.,]+|\s+|─+", "#", line) for line in seconds.splitlines()]

    assert masked(page()) == masked(TEXT), "run: python -m docs.generate after_training"
