"""docs/layers.md: every layer of the catalogue, with what its test cases found."""

from collections.abc import Iterator

import torch

from convtrain.layers import FAMILIES, containers
from convtrain.layers.entry import Entry
from convtrain.layers.exceptions import EXCEPTIONS
from docs.generate import DOCS
from tests.layers.cases import CASES
from tests.layers.parity import DTYPES, check

PAGE = DOCS / "layers.md"

HEAD = f"""# Every layer, in both styles

`python -m docs.generate layers` writes this page: it runs every layer in both styles and compares
the bits of outputs, of the gradients of every floating-point input and parameter, and of the
buffers after the step. A case is one choice of constructor arguments and inputs. Each case runs in
training and evaluation mode, with and without gradients, in channels_last, and in every dtype;
"same bits" means that all of these runs agree. Where `torch.nn` raises because it does not support
a dtype or a memory format, the functional style must raise too.

Of the classes that `torch.nn` exports, {{catalogued}} are in the catalogue and {len(EXCEPTIONS)}
are [exceptions](#exceptions). A twin without `F.` or `torch.` is defined in its family's file in
`convtrain/layers/`. `torch.func.functional_call` stands for a layer that torch computes by private
functions alone: in the functional style, torch's own module computes it on the model's explicit
tensors, and `functional_call` does so on tensors that are given by name.
"""


def columns(entry: Entry) -> list[str]:
    """Return what the catalogue says of a layer: name, twin, inferred arguments, cases."""
    return [
        entry.module.__name__,
        f"`{entry.function_name}`",
        ", ".join(entry.infer),
        str(len(CASES[entry.module])),
    ]


def verdict(entry: Entry) -> list[str]:
    """Run a layer's cases; return the dtypes that all support, and whether all bits agree."""
    if entry.twin is containers.no_forward:
        return ["", "no forward"]
    verdicts = [check(entry, case) for case in CASES[entry.module]]
    supported = [t for t in DTYPES if all(t in each.dtypes for each in verdicts)]
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in supported)
    different = any(each.different for each in verdicts)
    return [names, "**different**" if different else "same bits"]


def page() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    catalogued = sum(
        entry.module.__name__ in vars(torch.nn) for family in FAMILIES.values() for entry in family
    )
    yield HEAD.format(catalogued=catalogued)
    for family, entries in FAMILIES.items():
        yield f"## {family}\n"
        yield "| layer | functional twin | inferred | cases | dtypes | parity |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for entry in entries:
            yield f"| {' | '.join([*columns(entry), *verdict(entry)])} |"
        yield ""
    yield "## Exceptions\n"
    yield "| class | why it is left out |"
    yield "| --- | --- |"
    for name, reason in EXCEPTIONS.items():
        yield f"| {name} | {reason} |"
