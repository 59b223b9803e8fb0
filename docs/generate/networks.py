"""docs/networks.md: networks that torchvision has too, declared and compared."""

import torch

from convtrain.network.resolve import resolve_network
from convtrain.network.summary import summarize, totals
from convtrain.run.commands import CONFIGS
from docs.generate import DOCS
from tests.network.known import MODES, NETWORKS, STYLES, declared, differences, known

PAGE = DOCS / "networks.md"
HEAD = """# Known networks, declared

`python -m docs.generate networks` writes this page, and a test checks that it is up to date. Each
network is a YAML file in `configs/network/`, without a line of Python. It is compared with
torchvision's network of the same name; LeNet-5, which torchvision does not have, is compared with
one built in `tests/network/known.py`. Both get the same weights, buffers and random state, and run
forward and backward on two images of 64x64 (28x28 for LeNet-5). The table shows the largest
absolute difference over the logits, the gradients of all parameters and the buffers after the
step; `same bits` means that nothing differs. Parameters and multiply-adds are for 1,000 classes
at 224x224 (10 classes at 28x28 for LeNet-5).

"""
COLUMNS = (
    *("network", "lines of YAML", "parameters", "torchvision's", "multiply-adds"),
    *(f"{style}, {mode}" for style in STYLES for mode in MODES),
)


def lines_of_yaml(name: str) -> int:
    """Count the lines that declare something."""
    lines = (CONFIGS / "network" / f"{name}.yaml").read_text().splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def costs(name: str) -> tuple[int, int]:
    """Return parameters and multiply-adds at the network's own image size."""
    network, size = declared(name), (1, 28, 28) if name == "lenet" else (3, 224, 224)
    return totals(summarize(resolve_network(network.layers, size, network.blocks)))


def known_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in known(name).parameters())


def row(name: str) -> list[str]:
    """Return a network's cells, but for the differences."""
    parameters, multiply_adds = costs(name)
    numbers = (lines_of_yaml(name), parameters, known_parameters(name), multiply_adds)
    return [name, *(f"{number:,}" for number in numbers)]


def shown(difference: float) -> str:
    return "same bits" if difference == 0 else f"{difference:.1e}"


def page() -> str:
    rows = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for name in NETWORKS:
        found = differences(name)
        rows.append([*row(name), *(shown(difference.largest) for difference in found.values())])
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
