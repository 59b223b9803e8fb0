"""Mistakes in optimizer.groups that are found without torch, each with its line."""

import pytest
import yaml

from convtrain.config.check import validate
from convtrain.config.groups.optimizer import AdamW
from convtrain.errors import ConfigError
from tests.conftest import compose

KEY = "optimizer.groups.0"
MISTAKES = {
    "{lr: 3}": f"{KEY}.match: is missing",
    "{match: [], lr: 3}": f"{KEY}.match=[]: must be a string or must have at least 1 item, not 0",
    "{match: conv*, lr: -3}": f"{KEY}.lr=-3: must be greater than 0",
    "{match: conv*, weight_decy: 0}": f"{KEY}.weight_decy=0: no such key; did you mean weight_d",
    "{match: conv*, betas: [0, 0]}": f"{KEY}.betas=[0, 0]: no such key; known here: freeze, lr, ",
    "{match: conv*, momentum: two}": f"{KEY}.momentum=two: must be a number",
    "{match: conv*, lr: 1, lr_scale: 2}": f"{KEY}.lr_scale=2: is a factor of optimizer.lr, but the",
    "{match: conv*, freeze: true, lr: 1}": f"{KEY}.freeze=true: no optimiser updates frozen",
    "{match: conv*, name: default}": f"{KEY}.name=default: is the name of another group",
    "{match: conv*, optimizer: {name: Adam, lr: 1}}": f"{KEY}.optimizer.name=Adam: must be one of",
    "{match: conv*, optimizer: {name: adamw}}": f"{KEY}.optimizer.lr: is missing",
    "{match: conv*, optimizer: {name: adamw, lr: 1, betaz: 1}}": (
        f"{KEY}.optimizer.betaz=1: no such key; did you mean {KEY}.optimizer.betas?"
    ),
    "{match: conv*, lr: 2, optimizer: {name: adamw, lr: 1}}": (
        f"{KEY}.lr=2: belongs to the group's own optimiser; type it in {KEY}.optimizer"
    ),
    "{match: conv*, optimizer: {name: adamw, lr: 1, no_decay: [bias]}}": (
        f"{KEY}.optimizer.no_decay=[bias]: is no option of a group's optimiser"
    ),
    "{match: conv*, optimizer: {name: custom, _target_: os.system}}": (
        f"{KEY}.optimizer._target_=os.system: not allowed"
    ),
}


def test_each_mistake_has_its_line() -> None:
    plain, lines = compose("optimizer=sgd_momentum").model_dump(by_alias=True), []
    for declared in MISTAKES:
        plain["optimizer"]["groups"] = [yaml.safe_load(declared)]
        with pytest.raises(ConfigError) as raised:
            validate(plain)
        lines.append(raised.value.lines[0])
    expected = list(MISTAKES.values())
    assert [line[: len(text)] for line, text in zip(lines, expected, strict=True)] == expected


def test_what_a_group_omits_is_left_to_the_class_it_builds() -> None:
    config = compose("optimizer.groups=[{match: '*', optimizer: {name: adamw, lr: 0.1}}]")
    own = config.optimizer.groups[0].optimizer
    assert isinstance(own, AdamW)
    assert own.arguments == {"lr": 0.1}
    again = type(config).model_validate(config.model_dump(by_alias=True))
    assert again.optimizer.groups[0].optimizer.arguments == {"lr": 0.1}


def test_fsdp_refuses_groups() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.layer_decay=0.5: is not tested with weights"):
        compose("trainer=fsdp", "optimizer.layer_decay=0.5")
