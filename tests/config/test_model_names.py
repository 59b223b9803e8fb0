"""A run is called after the model that it trains, wherever its name is shown."""

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
    "model=custom model._target_=torch.nn.Linear +model.name=other": "Linear",
}


@pytest.mark.parametrize("typed", NAMES)
def test_directories_check_and_tensorboard_name_the_model(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
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
