"""What ``--help`` says of datasets and networks is so."""

import re

import pytest
import yaml

from convtrain.command.help import help_text
from convtrain.config.data_sections import PUBLISHED
from convtrain.errors import NetworkError
from convtrain.network.resolve import resolve_network
from convtrain.run.commands import CONFIGS
from tests.conftest import compose


def said(group: str) -> dict[str, str]:
    """Return the choices of a group, each with what stands in brackets behind it."""
    (line,) = re.findall(rf"^{group}: (.*)$", help_text([CONFIGS]), flags=re.MULTILINE)
    return dict(re.findall(r"(\w+)(?: \(([^)]*)\))?", line))


def fits(name: str, shape: list[int]) -> bool:
    text = (CONFIGS / "network" / f"{name}.yaml").read_text()
    declared = yaml.safe_load(text.replace("${data.num_classes}", "10").replace('"10"', "10"))
    try:
        network = resolve_network(declared["layers"], shape, declared.get("blocks"))
    except NetworkError:
        return False
    return network.output_shape == (10,)


@pytest.mark.parametrize("name", said("network"))
def test_a_network_takes_the_images_that_it_is_said_to_take(name: str) -> None:
    purpose = said("network")[name]
    if purpose.startswith("experiment="):
        assert compose(purpose).network.name == name
        return
    side = int(re.sub(r"x.*", "", purpose) or 8)
    assert fits(name, [1, side, side])
    assert not purpose or not fits(name, [1, side - 1, side - 1])


def test_a_network_without_a_word_takes_the_images_of_every_dataset() -> None:
    sides = [shape.split("x")[1] for shape in said("data").values() if shape]
    assert min(map(int, sides)) == 8


def test_the_shape_of_a_dataset_is_its_own() -> None:
    shapes = said("data")
    for name, known in PUBLISHED.items():
        assert shapes[name] == "x".join(map(str, known.shape))
