"""The catalogue as a page, made by running every case: ``python -m tests.layers.table``."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from convtrain.layers import FAMILIES, containers
from convtrain.layers.entry import Entry
from convtrain.layers.exceptions import EXCEPTIONS
from tests.layers.cases import CASES
from tests.layers.parity import DTYPES, check

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"

HEAD = f"""# Every layer, in both styles

Written by `python -m tests.layers.table`, which runs every layer in both styles and compares bits:
outputs, gradients of every floating input and parameter, and buffers after the step. A case is one
choice of constructor arguments and inputs; each runs in training and evaluation mode, with and
without gradients, in channels_last, and in every number type. "same bits" says that all of them
agreed. Where torch.nn raises, because it does not support a number type or layout, so must the
functional style.

Of the classes that `torch.nn` exports, {{catalogued}} are in the catalogue and {len(EXCEPTIONS)}
are [exceptions](#exceptions). A twin without `F.` or `torch.` stands in its family's file under
`convtrain/layers/`.
"""


def columns(entry: Entry) -> list[str]:
    """What the catalogue says of a layer: name, twin, inferred arguments, number of cases."""
    return [
        entry.module.__name__,
        f"`{entry.function_name}`",
        ", ".join(entry.infer),
        str(len(CASES[entry.module])),
    ]


def verdict(entry: Entry) -> list[str]:
    """Run a layer's cases: number types in which all are supported, and whether all bits agreed."""
    if entry.twin is containers.no_forward:
        return ["", "no forward"]
    verdicts = [check(entry, case) for case in CASES[entry.module]]
    supported = [t for t in DTYPES if all(t in each.dtypes for each in verdicts)]
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in supported)
    different = any(each.different for each in verdicts)
    return [names, "**different**" if different else "same bits"]


def page() -> Iterator[str]:
    catalogued = sum(
        entry.module.__name__ in vars(torch.nn) for family in FAMILIES.values() for entry in family
    )
    yield HEAD.format(catalogued=catalogued)
    for family, entries in FAMILIES.items():
        yield f"## {family}\n"
        yield "| layer | functional twin | inferred | cases | number types | parity |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for entry in entries:
            yield f"| {' | '.join([*columns(entry), *verdict(entry)])} |"
        yield ""
    yield "## Exceptions\n"
    yield "| class | why it is left out |"
    yield "| --- | --- |"
    for name, reason in EXCEPTIONS.items():
        yield f"| {name} | {reason} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(page()) + "\n")
