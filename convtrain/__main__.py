"""``python -m convtrain``: check a configuration; look at layers, or at a declared network.

Nothing heavy is imported before there is something to show.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from convtrain.errors import ConfigError, ConvtrainError

if TYPE_CHECKING:
    from convtrain.config.schema import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m convtrain", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    layers = verbs.add_parser("layers", help="the catalogue of layers, or one of them in full")
    layers.add_argument("name", nargs="?", help="such as Conv2d")
    summary = verbs.add_parser("summary", help="a declared network as a table")
    summary.add_argument("overrides", nargs="*", help="as for train.py: network=resnet18")
    check = verbs.add_parser(
        "check", help="what is wrong with a configuration", allow_abbrev=False,
        usage="python -m convtrain check [--build] [as for train.py: model=nn -m seed=1,2]",
    )  # fmt: skip
    check.add_argument("--build", action="store_true", help="also build it and tell what it takes")
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.verb != "check":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        if chosen.verb == "check":
            show_check(console, rest, build=chosen.build)
        elif chosen.verb == "summary":
            show_summary(console, chosen.overrides)
        elif chosen.name:
            show_layer(console, chosen.name)
        else:
            show_layers(console)
    except ConvtrainError as error:
        from convtrain.config.check import print_error

        print_error(error)
        return error.exit_status
    return 0


def show_layers(console: Console) -> None:
    from convtrain.catalogue import describe_all

    table = Table("layer", "family", "functional twin", "inferred", box=box.SIMPLE)
    rows = describe_all()
    for row in rows:
        table.add_row(row.name, row.family, row.twin, ", ".join(row.inferred))
    console.print(table)
    console.print(f"{len(rows)} layers; 'python -m convtrain layers Conv2d' shows one in full")


def show_layer(console: Console, name: str) -> None:
    from convtrain.catalogue import describe_named

    layer = describe_named(name)
    table = Table.grid(padding=(0, 2))
    table.add_row("layer", layer.name)
    table.add_row("what for", layer.purpose)
    table.add_row("family", layer.family)
    table.add_row("functional twin", layer.twin)
    table.add_row("arguments", "\n".join(layer.arguments) or "none")
    table.add_row("in YAML", layer.example)
    console.print(table, markup=False)


def show_summary(console: Console, overrides: Sequence[str]) -> None:
    from convtrain.config.check import resolve_config
    from convtrain.config.command_line import CommandLine
    from convtrain.config.compose import compose_leniently
    from convtrain.config.names import register_resolvers
    from convtrain.config.schema import DeclaredModel

    register_resolvers()
    (composed,) = compose_leniently(CommandLine(overrides=list(overrides)))
    config = resolve_config(composed.config, overrides, composed.origin)
    if not isinstance(config.model, DeclaredModel):
        raise ConfigError(
            f"model={config.model.style}: only a declared network has a summary; "
            f"choose model=functional or model=nn"
        )
    from convtrain.network import resolve_network
    from convtrain.summary import summarize, totals

    network = resolve_network(config.network.layers, config.data.shape, config.network.blocks)
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
        table.add_row(row.path, row.kind, " x ".join(map(str, row.output_shape)), *numbers)
    shape = " x ".join(map(str, config.data.shape))
    console.print(f"{config.network.name} for one image of {shape}")
    console.print(table)


def show_check(console: Console, arguments: Sequence[str], *, build: bool) -> None:
    from convtrain.config.check import check_command
    from convtrain.config.command_line import CommandLine
    from convtrain.config.names import register_resolvers

    register_resolvers()
    configs, _ = check_command(CommandLine.parse(arguments))
    for config in configs:
        built = make_forecast_table(config) if build else None
        console.print(
            f"ok: data={config.data.name}, network={config.network.name}, "
            f"model={config.model.style}, loss={config.loss.name}, "
            f"optimizer={config.optimizer.name}, trainer.max_epochs={config.trainer.max_epochs}",
            soft_wrap=True,
        )
        if built is not None:
            console.print(built)


def make_forecast_table(config: "Config") -> Table:
    from convtrain.forecast import forecast

    found = forecast(config)
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_row("parameters", f"{found.parameters:,}")
    train, val, test = found.images
    table.add_row("images", f"{train:,} to train, {val:,} to validate, {test:,} to test")
    steps = f"{found.steps:,}, {found.epoch_steps:,} an epoch"
    table.add_row("optimiser steps, at most", steps)
    for what, sizes in (("memory", found.memory), ("disk", found.disk)):
        table.add_section()
        table.add_row(f"{what}, about", f"{sum(sizes.values()) / 1e6:,.1f} MB")
        for name, size in sizes.items():
            table.add_row(f"  {name}", f"{size / 1e6:,.1f} MB")
    if "activations" not in found.memory:
        table.add_row("  activations", "not known: the model computes with values")
    return table


if __name__ == "__main__":
    sys.exit(main())
