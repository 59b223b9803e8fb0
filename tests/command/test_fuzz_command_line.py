"""Mistyped command lines: refused in lines with status 2, or composed to what was typed."""

import random
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from convtrain.command.job_config import resolve_config
from convtrain.config.schema import Config
from convtrain.run.commands import CONFIGS
from tests.command.typed import check
from tests.config.ranges import ROWS

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("[!_]*.yaml"))
    for folder in CONFIGS.iterdir()
    if folder.is_dir() and folder.name != "hydra"
}
GROUPS_TYPED = tuple(f"{group}=" for group in GROUPS)
KEYS = sorted({key for _, allowed in ROWS for key in allowed})
VALUES = (
    "", "null", "true", "0", "1", "-1", "3", "1.5", "1e3", "1e400", "nan", "abc", "'1'", "[]",
    "[1]", "[0.5,0.5]", "[1,8,8]", "{}", "{a:1}", "1,2", "a,b", "range(1,4)", "range(4,1)",
    "glob(*)", "choice(1,2)", "interval(0,1)", "sort(2,1)", "shuffle(1,2)", "int(3)", "str(3)",
    "${seed}", "${nope}", "${", "$x", "???", "a b", "'a b'", '"', "\\", "a=b", "@", "é", "🦆", "\n",
    "\x00", "(", "../x", "/x", "auto", "val/acc", "min", "functional", "nn", "sgd", "x" * 5000,
)  # fmt: skip
MARKS = ("+", "++", "~", "-", "--", " ", "=", "@", "hydra.", "hydra/")


def typed(draw: random.Random) -> str:
    """Return an override as somebody in a hurry types it."""
    if draw.random() < 0.5:
        key = draw.choice(sorted(GROUPS))
        value = draw.choice(GROUPS[key] if draw.random() < 0.6 else VALUES)
    else:
        key, value = draw.choice(KEYS), draw.choice(VALUES)
    text = f"{key}={value}"
    slips = draw.choices([0, 1, 2], [7, 2, 1])[0]
    for _ in range(slips):
        place = draw.randrange(len(text) + 1)
        end = place + draw.choice([0, 1])
        added = draw.choice(["", "", draw.choice(string.printable), draw.choice(".=[]{},")])
        text = text[:place] + added + text[end:]
    return draw.choice(MARKS) + text if draw.random() < 0.15 else text


def command_lines(count: int, seed: int) -> Iterator[list[str]]:
    draw = random.Random(seed)
    for _ in range(count):
        words = [typed(draw) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
        yield (["-m"] if draw.random() < 0.2 else []) + words


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_mistyped_command_line_is_refused_in_lines_or_does_what_it_says(
    seed: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = Counter[str]()
    for words in command_lines(150, seed):
        try:
            checked = check(words)
        except SystemExit as stopped:
            outcomes["refused"] += 1
            status, said = stopped.code, capsys.readouterr().err
            assert status == (2 if said else 0), words  # 0: one is --help
            for line in said.removesuffix("\n").split("\n"):
                assert line.isprintable(), (words, line)
                assert len(line) < 1500, (words, line)
        else:
            outcomes["accepted"] += 1
            if not any(word.startswith("-") for word in words):
                assert_does_what_it_says(checked.command.overrides, checked.config)
    assert outcomes["refused"] > 75
    assert outcomes["accepted"] > 10
    assert not list(tmp_path.iterdir())


def assert_does_what_it_says(arguments: list[str], config: Config) -> None:
    """Compare with what Hydra composes when it is made to add the keys that no file has."""
    overrides = OverridesParser.create().parse_overrides(arguments)
    added = [
        f"++{text}"
        if text[0] not in "+~" and not text.startswith(("hydra", *GROUPS_TYPED))
        else text
        for text in arguments
    ]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        composed = compose("train", added)
    plain = config.model_dump(by_alias=True)
    assert resolve_config(composed).model_dump(by_alias=True) == plain
    keys = [override.key_or_group for override in overrides]
    for index, override in enumerate(overrides):
        key, value = override.key_or_group, override.value()
        later = [other for other in keys[index + 1 :] if f"{key}.".startswith(f"{other}.")]
        if override.is_delete() or later or key.startswith("hydra") or key in GROUPS:
            continue
        if isinstance(value, str | int | float | list) and "${" not in str(value):
            found: Any = plain
            for part in key.split("."):
                found = found[part]
            assert found == value, (arguments, key)
    for override in overrides:
        name = override.key_or_group
        if name in Config.model_fields and name in GROUPS and keys.count(name) == 1:
            assert name in plain
