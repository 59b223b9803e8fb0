"""The shorter ways of tests/quick_hydra.py, against Hydra's and OmegaConf's own."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, Node, OmegaConf

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from tests.quick_hydra import QUICK_WAYS, THEIR_WAYS, composing

NODES = OmegaConf.create({"a": {"b": [1, None, 0.5, "${a.c}", {"d": True}], "c": "???"}, "e": {}})

OWN = """# @package _global_
defaults:
  - /loss@other: ${experiment}
  - _self_
  - override /data: digits
x: ${data.name}
"""


def everything(node: Node, above: Node | None = None) -> object:
    """Return what is in a node and below it: type, value, flags; check where it hangs."""
    assert node._get_parent() is above
    content = node.__dict__.get("_content", node.__dict__.get("_val"))
    if isinstance(content, dict):
        content = {key: everything(value, node) for key, value in content.items()}
    elif isinstance(content, list):
        content = [everything(value, node) for value in content]
    cached = list(node._metadata.resolver_cache)  # the times in it differ
    return type(node), {**vars(node._metadata), "resolver_cache": cached}, content


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=mnist", "metrics=[f1,top5]", "seed=${oc.env:SEED}", "hydra/job_logging=none"],
        ["experiment=own", "loss=bce"],
    ],
    ids=" ".join,
)
def test_the_same_is_composed(overrides: Sequence[str], tmp_path: Path) -> None:
    for group, text in {"experiment": OWN, "loss": "name: bce\n"}.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "own.yaml").write_text(text)
    composed = []
    for ways in (THEIR_WAYS, QUICK_WAYS, QUICK_WAYS):
        with composing(ways):
            command = CommandLine(overrides=list(overrides), extra_dir=tmp_path)
            (found,) = compose_command(command)
            composed.append(everything(found.whole))
    assert composed[0] == composed[1] == composed[2]


def test_a_copy_is_another_one() -> None:
    with composing(THEIR_WAYS):
        expected = everything(copy.deepcopy(NODES))
    with composing(QUICK_WAYS):
        copied = copy.deepcopy(NODES)
        assert everything(copied) == expected == everything(NODES)
        OmegaConf.set_struct(copied, True)
        OmegaConf.set_readonly(copied.a, True)
        with pytest.raises(Exception, match="read-only"):
            copied.a.c = 1
        copied.e = {"f": copied.a.b[2]}
    assert everything(NODES) == expected
    assert isinstance(copied, DictConfig)
    assert copied.a.b[4]._get_root() is copied
