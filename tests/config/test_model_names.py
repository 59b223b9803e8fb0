"""A run is called after the model that it trains, wherever its name is shown."""

import sys
from pathlib import Path

import pytest

from convtrain.__main__ import main
from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.training.loggers.tensorboard import compared_settings

NAMES = {
    "model=functional network=lenet data=mnist": "lenet",
    "model=nn network.name=mine": "mine",
    "model=torchvision model.name=resnet18 network=lenet": "resnet18",
    "model=custom model._target_=mypackage.nets.MyNet trust=[mypackage]": "MyNet",
    "model=custom model._target_=torch.nn.Flatten model.start_dim=1": "Flatten",
}


@pytest.mark.parametrize("typed", NAMES)
def test_directories_check_and_tensorboard_name_the_model(
    typed: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mypackage").mkdir()
    source = "from torch import nn\nclass MyNet(nn.Module): pass\n"
    (tmp_path / "mypackage" / "nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypackage", raising=False)  # another test's
    name = NAMES[typed]
    checked = configure_command(CommandLine.parse(typed.split()))
    for folder in (checked.composed.hydra.run.dir, checked.composed.hydra.sweep.dir):
        assert Path(folder).parent.name == name
    assert main(["check", *typed.split()]) == 0
    assert f", network={name}, " in capsys.readouterr().out
    assert compared_settings(checked.configs[0])["network"] == name


def test_an_experiment_names_its_runs() -> None:
    checked = configure_command(CommandLine.parse(["experiment=mnist", "model=torchvision"]))
    assert Path(checked.composed.hydra.run.dir).parent.name == "mnist"
