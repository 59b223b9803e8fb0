"""``list`` shows every choice with a line of its own, and ``copy`` takes a shipped one along."""

from pathlib import Path

import pytest
import yaml

from convtrain.__main__ import main
from convtrain.command.choices import find_choices, summary
from convtrain.command.configure import configure
from convtrain.run.commands import CONFIGS

Capture = pytest.CaptureFixture[str]


def test_every_choice_says_what_it_is(capsys: Capture) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group, files in find_choices([CONFIGS]).items():
        for name, file in files.items():
            (line,) = [
                text for text in lines if text.split()[:1] == [name] and summary(file) in text
            ]
            assert len(line.split()) > 2, f"{group}/{name}.yaml needs a comment in its first line"


def test_list_shows_a_group_with_numbers_reached_and_files_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configs" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\n# Birds, by\n# their song. At night.\n"
        "# Reaches: 71.2 % of the owls (seed 1).\nseed: 2\n"
    )
    assert main(["list", "experiment"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "experiment"
    mine = "Birds, by their song. Reaches 71.2 % of the owls. [configs/experiment/mine.yaml]"
    (line,) = (text for text in printed if text.startswith("  mine "))
    assert line.endswith(mine)
    (mnist,) = (text for text in printed if text.startswith("  mnist "))
    assert "Reaches 99.54 % test accuracy" in mnist
    assert main(["list", "experimnt"]) == 2
    assert capsys.readouterr().err == "experimnt: no such group; did you mean experiment?\n"


def test_a_copy_takes_the_place_of_what_it_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["copy", "optimizer/adam"]) == 0
    copy = tmp_path / "configs" / "optimizer" / "adam.yaml"
    assert copy.read_text() == (CONFIGS / "optimizer" / "adam.yaml").read_text()
    copy.write_text(copy.read_text().replace("lr: 0.001", "lr: 0.125"))
    assert main(["copy", "network/resnet8", "configs/network/mine.yaml"]) == 0
    config = configure(["optimizer=adam", "network=mine"]).config
    assert config.optimizer.lr == 0.125
    layers = yaml.safe_load((CONFIGS / "network" / "resnet8.yaml").read_text())["layers"]
    assert len(config.network.layers) == len(layers)
    capsys.readouterr()
    for arguments, line in (
        (["optimizer/adam"], "configs/optimizer/adam.yaml: exists already; "),
        (["network/resnet9"], "network/resnet9: convtrain ships no such file; did you mean "),
        (["lenet"], "lenet: convtrain ships no such file; did you mean network/lenet?"),
        (["../pyproject"], "../pyproject: convtrain ships no such file; "),
        (["loss/mse", "mine"], "mine: must end in .yaml; type mine.yaml"),
    ):
        assert main(["copy", *arguments]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(line)
