"""Check a configuration or a sweep without training.

With --build, also build the model and forecast its parameters, steps, memory and disk.

Example: python -m convtrain check --build network=resnet18 data=cifar10
"""

import argparse
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from convtrain.program import as_typed
from convtrain.text import format_bytes, make_console
from convtrain.verbs.summary import make_groups_table

if TYPE_CHECKING:
    from convtrain.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    as_for = as_typed("options and overrides as for python train.py")
    parser.usage = f"{parser.prog} [--build] [{as_for}]"
    parser.add_argument("--build", action="store_true", help="also build it and forecast its needs")
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    from convtrain.command.configure import configure

    console = make_console()
    for config in configure(arguments.overrides, "--build").configs:
        if config.augment.transforms:  # imports torch, and tries them on random images
            config.augment.build(
                shape=config.data.shape, store_size=config.data.stored_side, trust=config.trust
            )
        tables = make_forecast_tables(config) if arguments.build else []
        console.print(
            f"ok: {config.data.override}, network={config.model_name}, "
            f"model={config.model.style}, loss={config.loss_name}, "
            f"optimizer={config.optimizer.name}, trainer.max_epochs={config.trainer.max_epochs}",
        )
        for table in tables:
            console.print(table)
    return 0


def make_forecast_tables(config: "Config") -> list[Table]:
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.forecast import forecast

    found = forecast(config)
    train, val, test = found.images
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_row("parameters", f"{found.parameters:,}")
    for how_long, count in found.frozen.items():
        table.add_row(f"  {how_long}", f"{count:,}")
    table.add_row("images", f"{train:,} to train, {val:,} to validate, {test:,} to test")
    steps = f"{found.steps:,}, {found.epoch_steps:,} an epoch"
    table.add_row("optimiser steps, at most", steps)
    for line in found.weights:
        table.add_row("begins with", line)
    for what, sizes in (("memory", found.memory), ("disk", found.disk)):
        table.add_section()
        table.add_row(f"{what}, about", format_bytes(sum(sizes.values())))
        for name, size in sizes.items():
            table.add_row(f"  {name}", format_bytes(size))
    if "activations" not in found.memory:
        table.add_row("  activations", "not known: the model computes with values")
    return [table, make_groups_table(found.groups)] if len(found.groups) > 1 else [table]
