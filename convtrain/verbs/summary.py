"""Show a declared network as a table of layers, shapes and parameters.

Example: python -m convtrain summary network=resnet18 data=cifar10
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from convtrain.config.groups.optimizer import GROUPING
from convtrain.errors import ConfigError
from convtrain.program import as_typed
from convtrain.text import make_console

if TYPE_CHECKING:
    from convtrain.training.optimizers.build import GroupSummary


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
    if config.model.freeze or any(getattr(config.optimizer, key) for key in GROUPING):
        from convtrain.launch.libraries import importing_pipeline

        with importing_pipeline():
            from convtrain.forecast import make_model_on_meta
            from convtrain.training.freezing import freeze
            from convtrain.training.objectives import build_loss
            from convtrain.training.optimizers import build
            from convtrain.training.parts import parts_of

        parts = parts_of(make_model_on_meta(config), build_loss(config))
        starts = freeze(config.optimizer, config.model, parts).start_epochs
        groups = build.summarize(config.optimizer, parts, starts)
        if len(groups) > 1:
            console.print(make_groups_table(groups))
    return 0


def make_groups_table(groups: "Sequence[GroupSummary]") -> Table:
    """Return the table of parameter groups."""
    table = Table(box=box.SIMPLE)
    table.add_column("group", overflow="fold")
    table.add_column("optimiser", no_wrap=True)
    for number in ("lr", "weight\ndecay", "tensors", "parameters"):
        table.add_column(number, justify="right", no_wrap=True)
    table.add_column("names")
    for group in groups:
        until = f", from epoch {group.start_epoch:g}" if group.start_epoch else ""
        chosen = f"{group.optimizer}{until}" if group.optimizer else "frozen"
        rates = ("" if value is None else f"{value:g}" for value in (group.lr, group.weight_decay))
        names = Text(", ".join(group.names), overflow="ellipsis", no_wrap=True)  # on one line
        counts = f"{len(group.names):,}", f"{group.numbers:,}"
        table.add_row(group.label, chosen, *rates, *counts, names)
    return table


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
