"""Write docs/networks.md: ``python -m tests.networks_table``."""

from pathlib import Path

import torch

from convtrain.command.compose import CONFIGS
from convtrain.network.resolve import resolve_network
from convtrain.network.summary import summarize, totals
from tests.conftest import REPOSITORY
from tests.networks import MODES, NETWORKS, STYLES, declared, differences, known

PAGE = REPOSITORY / "docs" / "networks.md"
HEAD = """# Known networks, declared

Written by `python -m tests.networks_table`; a test keeps it current. Each network stands in
`configs/network/` with no line of Python. It is compared with torchvision's (LeNet-5, which
torchvision does not have, with one written out in `tests/networks.py`): the same weights and
buffers, two images of 64x64 (28x28 for LeNet-5), one random state, forward and backward. The
difference is the largest over scores, every parameter's gradient and every buffer afterwards;
`same bits` means that there is none at all. Parameters and multiply-adds are for 1,000 classes at
224x224 (10 at 28x28).

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


def main(target: Path = PAGE) -> None:
    torch.set_num_threads(1)
    target.parent.mkdir(exist_ok=True)
    target.write_text(page())


if __name__ == "__main__":
    main()
