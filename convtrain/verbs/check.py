"""Check a configuration or a sweep without training.

With --build, also look at the data, build the model and forecast its parameters, steps, memory and
disk.

Example: python -m convtrain check --build network=resnet18 data=cifar10
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from convtrain.errors import ConfigError
from convtrain.program import as_typed
from convtrain.text import format_bytes, make_console
from convtrain.verbs.summary import make_groups_table

SECONDS_BETWEEN_UPDATES = 0.25  # of the bar

if TYPE_CHECKING:
    from rich.console import Console

    from convtrain.config.groups.data import Data
    from convtrain.config.schema import Config
    from convtrain.data.file_inspection import Progress
    from convtrain.data.inspection import Inspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    as_for = as_typed("options and overrides as for python train.py")
    parser.usage = f"{parser.prog} [--build [--all]] [{as_for}]"
    parser.add_argument("--build", action="store_true", help="also build it and forecast its needs")
    parser.add_argument(
        "--all", action="store_true", help="look at every image file, however many there are"
    )
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    from convtrain.command.configure import configure

    if arguments.all and not arguments.build:
        raise ConfigError("--all: is about the images that --build reads; type --build --all")
    console = make_console()
    inspected: tuple[Data, Inspection] | None = None  # what a sweep's jobs share is read once
    for config in configure(arguments.overrides, "--build", "--all").configs:
        if config.augment.transforms:  # imports torch, and tries them on random images
            config.augment.build(
                shape=config.data.shape, store_size=config.data.stored_side, trust=config.trust
            )
        tables = []
        if arguments.build:
            if inspected is None or inspected[0] != config.data:
                inspected = config.data, inspect_and_show(config, console, every=arguments.all)
            tables = make_forecast_tables(config, inspected[1])
        console.print(
            f"ok: {config.data.override}, network={config.model_name}, "
            f"model={config.model.style}, loss={config.loss_name}, "
            f"optimizer={config.optimizer.name}, trainer.max_epochs={config.trainer.max_epochs}",
        )
        for table in tables:
            console.print(table)
    return 0


def inspect_and_show(config: "Config", console: "Console", *, every: bool) -> "Inspection":
    """Print what is in the data; raise the error that a training raises of it."""
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.config.data_sections import ImageFiles
        from convtrain.config.targets import check_targets
        from convtrain.data.inspection import inspect_data
        from convtrain.data.inspection_tables import inspection_tables, storage_lines
        from convtrain.forecast import make_model_on_meta
        from convtrain.training.starting_weights import read_starting_weights

    check_targets(config)
    read_starting_weights(config, make_model_on_meta(config))  # their errors need no images
    with progress_bar() as progress:
        found = inspect_data(config.data, every_image=every, progress=progress)
    for table in inspection_tables(found, Path(config.data.root or ""), config.data.shape):
        console.print(table)
    if isinstance(config.data, ImageFiles):
        for line in storage_lines(found, config.data):
            console.print(line)
    if found.files is not None and found.files.error is not None:
        raise found.files.error
    return found


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """Yield a function that shows on a terminal how many images were looked at."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console, drawn = make_console(stderr=True), 0.0
    bar = Bar(
        TextColumn("images"), BarColumn(bar_width=None), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console, auto_refresh=False, transient=True,
        redirect_stdout=False, redirect_stderr=False, disable=not console.is_terminal,
    )  # fmt: skip
    row = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        nonlocal drawn
        if (now := time.monotonic()) - drawn > SECONDS_BETWEEN_UPDATES:
            drawn = now
            bar.update(row, completed=done, total=total, refresh=True)

    with bar:
        yield show


def make_forecast_tables(config: "Config", data: "Inspection") -> list[Table]:
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.forecast import forecast

    found = forecast(config, data)
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
