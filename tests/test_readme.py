"""Every command in the README is one that works."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from convtrain.config.check import check_command_line
from convtrain.network import resolve_network
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line]
TRAIN = [line for line in LINES if line.startswith("python train.py")]
MAKE = [line for line in LINES if line.startswith("make ")]
NETWORKS = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_opens_with_the_two_make_commands() -> None:
    assert LINES[:2] == ["make train", "make test"]
    assert README.index("make train") < README.index("make test") < README.index("pip install -e .")


@pytest.mark.parametrize("line", TRAIN)
def test_a_training_command_is_a_valid_configuration(line: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    line = line.replace("FOLDER", str(tmp_path)).replace("resume=RUN_DIRECTORY", "")
    check_command_line(shlex.split(line)[2:])


@pytest.mark.parametrize("line", MAKE)
def test_a_make_target_exists(line: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    assert shlex.split(line)[1] in targets


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_python_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target


@pytest.mark.parametrize("text", NETWORKS, ids=range(len(NETWORKS)))
def test_a_declared_network_can_be_built(text: str) -> None:
    network = yaml.safe_load(text.replace('"${data.num_classes}"', "10"))
    assert network["name"]
    resolve_network(network["layers"], (3, 32, 32), network.get("blocks"))
