"""./configs of a project: searched before convtrain's own, and named where a value is wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure
from convtrain.command.help import help_text
from convtrain.errors import ConfigError
from tests.conftest import REPOSITORY

Put = Callable[[str, str], None]
WIDE = "defaults: [resnet8, _self_]\nname: wide\n"
QUICK = "# @package _global_\ndefaults:\n  - override /network: wide\nseed: 17\n"
ADAM = "name: adam\nlr: 0.5\nbetas: [0.9, 0.999]\neps: 1.0e-8\nweight_decay: 0.0\n"
MINE = "defaults: [svhn, _self_]\nval_fraction: 0.2\n"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Write files of the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as raised:
        configure(arguments)
    return str(raised.value)


def test_choices_of_ones_own_stand_beside_the_shipped_ones_and_win(put: Put) -> None:
    put("configs/network/wide.yaml", WIDE)
    put("configs/experiment/quick.yaml", QUICK)
    put("configs/optimizer/adam.yaml", ADAM)
    config = configure(["experiment=quick", "optimizer=adam", "data=cifar10"]).config
    assert (config.network.name, config.seed, config.optimizer.lr) == ("wide", 17, 0.5)
    sweep = configure(["-m", "network=wide,lenet", "data=mnist"]).configs
    assert [each.network.name for each in sweep] == ["wide", "lenet"]
    said = help_text(CommandLine.parse([]).folders)
    assert re.search(r"^network: .*\bwide$", said, flags=re.M)
    assert re.findall(r"^optimizer: .*", said, flags=re.M)[0].count(" adam,") == 1


def test_what_is_nearer_wins(put: Put) -> None:
    for folder, rate in (("configs", 0.2), ("typed", 0.3), ("listed", 0.4)):
        put(f"{folder}/optimizer/adam.yaml", ADAM.replace("0.5", str(rate)))
    searched = f"hydra.searchpath=[file://{Path('listed').absolute()}]"
    for arguments, rate in ((["--config-dir=typed", searched], 0.3), ([searched], 0.2)):
        assert configure(["optimizer=adam", *arguments]).config.optimizer.lr == rate
    Path("configs/optimizer/adam.yaml").unlink()
    assert configure(["optimizer=adam", searched]).config.optimizer.lr == 0.4


def test_a_mistake_names_the_file_that_made_it(put: Put) -> None:
    put("configs/data/mine.yaml", MINE + "batch_size: 0\n")
    put("configs/network/wide.yaml", WIDE + "blocks: 3\n")
    first, second = refused("data=mine", "network=wide").splitlines()
    assert first.startswith("data.batch_size=0: ")
    assert first.endswith("[set in: configs/data/mine.yaml]")
    assert second.endswith("[set in: configs/network/wide.yaml]")
    put("configs/data/mine.yaml", MINE)
    put("configs/data/_base.yaml", "batch_size: 0\n")
    assert "data.batch_size=0: " in (text := refused("data=mine"))
    assert "[set in: configs/data/_base.yaml]" in text
    put("configs/experiment/quick.yaml", QUICK.replace("wide", "wider"))
    assert refused("experiment=quick").endswith("[set in: configs/experiment/quick.yaml]")
    put("configs/experiment/quick.yaml", QUICK + "optimizer:\n  lr: -1\n")
    assert "[set in: configs/experiment/quick.yaml]" in refused("experiment=quick", "data=svhn")


def test_a_mistake_in_a_shipped_file_does_not_name_one_of_ones_own(put: Put) -> None:
    put("configs/network/wide.yaml", WIDE)
    text = refused("optimizer=adam", "~optimizer.lr", "network=wide")
    assert "[set in: command line]" in text
    text = refused("data=svhn", "loss=nll", "network=lstm", "data.classes=[a,b]")
    assert "data.num_classes=10: " in text
    assert "[set in: convtrain/configs/data/svhn.yaml]" in text


def test_the_clone_and_a_folder_without_configs_have_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (REPOSITORY, tmp_path):
        monkeypatch.chdir(folder)
        assert CommandLine.parse(["seed=2"]).folders == [REPOSITORY / "configs"]
