"""The keys of data=custom: every mistake is a line before any data is read."""

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.errors import ConfigError
from tests.conftest import compose

FAKE = "torchvision.datasets.FakeData"
ONE = ("data=custom", f"data._target_={FAKE}", "data.num_classes=3")
SPLIT = ("data=custom", f"data.train._target_={FAKE}", "data.num_classes=3")
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing named": (("data=custom", "data.num_classes=3"), "data._target_: is missing; type "),
    "no train": (
        ("data=custom", f"data.test._target_={FAKE}", "data.num_classes=3"),
        "data.train: is missing; type ",
    ),
    "both forms": (
        (*ONE, f"data.test._target_={FAKE}"),
        f"data.test={{_target_: {FAKE}}}: cannot be combined with data._target_",
    ),
    "no number of classes": (ONE[:2], "data.num_classes=null: must be given"),
    "an argument at the wrong place": (
        (*SPLIT, "data.size=9"),
        "data.size=9: no such key; did you mean data.resize, or data.train.size, an argument",
    ),
    "a misspelt key": (
        (*SPLIT, "data.bath_size=9"),
        "data.bath_size=9: no such key; did you mean ",
    ),
    "a misspelt key beside arguments": (
        (*ONE, "data.bath_size=9"),
        "data.bath_size=9: FakeData has no such argument; did you mean batch_size?",
    ),
    "a misspelt argument": (
        (*SPLIT, "data.train.sise=9"),
        "data.train.sise=9: FakeData has no such argument; did you mean size?",
    ),
    "the argument train": (
        (*ONE, "data.train=true"),
        "data.train=true: must be ",
    ),
    "a function of a library": (
        ("data=custom", "data._target_=torchvision.datasets.utils.download_url", *ONE[2:]),
        "data._target_=torchvision.datasets.utils.download_url: expected a class derived",
    ),
    "a function of torch": (
        ("data=custom", "data.train._target_=torch.load", *ONE[2:]),
        "data.train._target_=torch.load: not allowed: torch is a library",
    ),
    "a range upside down": (
        (*ONE, "data.value_range=[1,0]"),
        "data.value_range=[1, 0]: the first value becomes black",
    ),
}


@pytest.mark.parametrize(("typed", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_a_line(typed: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure_command(CommandLine(overrides=list(typed)))
    (found,) = raised.value.lines
    assert found.startswith(line)


def test_the_statistics_follow_from_the_shape() -> None:
    config = compose(*SPLIT, "data.shape=[2,8,8]", "data.std=[1,2]")
    assert (config.data.mean, config.data.std) == ([0.5, 0.5], [1, 2])
