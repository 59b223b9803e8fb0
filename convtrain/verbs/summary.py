"""Show a declared network as a table of layers, shapes and parameters.

Example: python -m convtrain summary network=resnet18 data=cifar10
"""

import argparse
from collections.abc import Sequence

from rich import box
from rich.table import Table

from convtrain.errors import ConfigError
from convtrain.program import as_typed
from convtrain.text import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [{as_typed('overrides as for python train.py')}]"
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    from convtrain.command.configure import configure
    from convtrain.config.groups.model import DeclaredModel

    config, *others = configure(arguments.overrides).configs
    if others:
        raise ConfigError("-m: a summary shows one network; leave it out")
    if not isinstance(config.model, DeclaredModel):
        raise ConfigError(
            f"model={config.model.style}: only a declared network has a summary; "
            f"choose model=functional or model=nn"
        )
    from convtrain.models.build import refuse_taken_names
    from convtrain.network.resolve import resolve_network
    from convtrain.network.summary import summarize, totals

    declared = config.network
    network = resolve_network(declared.layers, config.data.shape, declared.blocks, config.trust)
    refuse_taken_names(network.layers)
    rows = summarize(network)
    parameters, multiply_adds = totals(rows)
    table = Table(box=box.SIMPLE, show_footer=True)
    table.add_column("name", "total", overflow="fold")
    table.add_column("layer")
    table.add_column("output")
    table.add_column("parameters", f"{parameters:,}", justify="right")
    table.add_column("multiply-adds", f"{multiply_adds:,}", justify="right")
    for row in rows:
        numbers = (f"{n:,}" if n else "" for n in (row.parameters, row.multiply_adds))
        table.add_row(row.path, row.kind, _shape(row.output_shape), *numbers)
    console = make_console()
    console.print(f"{config.network.name} for one image of {_shape(config.data.shape)}")
    console.print(table)
    return 0


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
