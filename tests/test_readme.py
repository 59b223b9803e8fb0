"""Every command in the README is one that works."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from convtrain.__main__ import verbs_by_name
from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.config.data_sections import PUBLISHED
from convtrain.config.groups.data import Synthetic, TorchvisionByName
from convtrain.forecast import forecast
from convtrain.network.resolve import resolve_network
from docs.generate.pictures import FOLDER, MAX_BYTES, NAMES, take
from docs.generate.readme import BEGIN, END, page
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line]
TRAIN = [line for line in LINES if line.startswith("python train.py")]
MAKE = [line for line in LINES if line.startswith("make ")]
NETWORKS = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
WRITTEN = README.partition(BEGIN)[0] + README.partition(END)[2]  # by hand
PYTHON = re.findall(r"```python\n(.*?)```", WRITTEN, flags=re.DOTALL)
PYTHON = [code for code in PYTHON if "RUN_DIRECTORY" not in code]  # see test_after_training_page.py


def test_the_readme_opens_with_the_two_make_commands() -> None:
    assert LINES[:2] == ["make train", "make test"]
    assert README.index("make train") < README.index("make test") < README.index("pip install -e .")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of images in two classes, and a package of one's own that may be imported."""
    for name, color in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        for index in range(40):
            Image.new("RGB", (70, 70), (color, index, 0)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "mypackage.py").write_text(
        "from torch import nn\nclass MyNet(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mypackage", None)


@pytest.mark.parametrize("line", TRAIN)
def test_a_training_command_can_be_built(line: str, folder: Path) -> None:
    """Data and weights that would have to be fetched are replaced by random ones."""
    line = line.replace("FOLDER", str(folder)).replace("resume=RUN_DIRECTORY", "")
    command = CommandLine.parse(shlex.split(line)[2:])
    for config in configure_command(command).configs[:1] if command.trains else ():
        data = config.data
        fetched = isinstance(data, TorchvisionByName) or data.name in PUBLISHED
        if fetched and data.name != "digits":
            kept = data.model_dump(
                include={*Synthetic.model_fields} - {"name", "fill", "train_size", "test_size"}
            )
            data = Synthetic(name="synthetic", fill="noise", train_size=2000, test_size=40, **kept)
        one_cpu = {"accelerator": "cpu", "devices": 1, "strategy": "auto"}
        trainer = config.trainer.model_copy(update=one_cpu)
        model = config.model.model_copy(update={"weights": None})
        made_here = {"data": data, "trainer": trainer, "model": model}
        assert forecast(config.model_copy(update=made_here)).parameters


def test_a_verb_of_the_installed_command_exists() -> None:
    typed = [shlex.split(line) for line in LINES if line.startswith("convtrain ")]
    assert {"train", "new", "list", "copy", "evaluate", "predict", "export", "code"} <= {
        verb for _, verb, *_ in typed
    }
    assert {verb for _, verb, *_ in typed} <= verbs_by_name().keys()


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


def test_what_is_generated_is_up_to_date() -> None:
    assert page() == README, "run: python -m docs.generate readme"


def test_the_pictures_are_there_described_and_small() -> None:
    shown = dict(re.findall(r"!\[([^]]*)\]\(docs/pictures/([\w-]+)\.png\)", README))
    assert set(shown.values()) <= set(NAMES) == {path.stem for path in FOLDER.iterdir()}
    assert all(len(alternative) > 20 for alternative in shown)
    for name in NAMES:
        with Image.open(FOLDER / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert picture.width >= 1000
        assert (FOLDER / f"{name}.png").stat().st_size <= MAX_BYTES


def test_what_makes_the_pictures_can_be_imported() -> None:
    assert callable(take.report)


@pytest.mark.parametrize("text", NETWORKS, ids=range(len(NETWORKS)))
def test_a_declared_network_can_be_built(text: str) -> None:
    network = yaml.safe_load(text.replace('"${data.num_classes}"', "10"))
    assert network["name"]
    resolve_network(network["layers"], (3, 32, 32), network.get("blocks"))
