"""A configuration file whose anchors unfold without end is refused before anything unfolds it."""

import time
from pathlib import Path

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.config.yaml_limits import refuse_explosions
from convtrain.errors import ConfigError
from convtrain.run.commands import CONFIGS

BOMB = "layers:\n  - &a0 [ReLU, ReLU]\n" + "".join(
    f"  - &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [(BOMB, "into 1.1e+11"), ("layers: &a [ReLU, *a]\n", "without end")],
    ids=["bomb", "circle"],
)
def test_a_bomb_is_named_and_not_unfolded(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "network").mkdir()
    file = tmp_path / "network" / "bomb.yaml"
    file.write_text(f"name: bomb\n{text}init: {{}}\n")
    started = time.process_time()
    command = CommandLine(overrides=["network=bomb"], extra_dir=tmp_path)
    with pytest.raises(ConfigError) as raised:
        list(compose_command(command))
    assert str(file) in str(raised.value)
    assert says in str(raised.value)
    assert time.process_time() - started < 2


def test_ordinary_anchors_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "ordinary.yaml").write_text("a: &a {b: [1, 2]}\nc: [*a, *a]\n")
    refuse_explosions([tmp_path, CONFIGS])
