"""``python -m convtrain``: check a configuration; look at layers, networks, runs and sweeps.

Nothing heavy is imported before there is something to show.
"""

import argparse
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

from convtrain.errors import ConfigError, ConvtrainError, did_you_mean
from convtrain.process.output import prepare_output
from convtrain.text import make_console

if TYPE_CHECKING:
    from convtrain.config.schema import Config


class Parser(argparse.ArgumentParser):
    """Raises its errors, where argparse prints a usage and exits."""

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"^argument (\S+): ", r"\1: ", message)
        raise ConfigError(f"{text}; {self.prog} --help shows what can be typed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status."""
    try:
        return run_verb(arguments)
    except ConvtrainError as error:
        from convtrain.process.output import print_error

        print_error(error)
        return error.exit_status


def run_verb(arguments: Sequence[str] | None) -> int:
    """Run a verb; return the exit status, or raise what went wrong."""
    parser = Parser(prog="python -m convtrain", description=__doc__)
    parser.add_argument("--version", action="store_true", help="of convtrain and what it stands on")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    layers = verbs.add_parser("layers", help="the catalogue of layers, or one of them in full")
    layers.add_argument("name", nargs="?", help="such as Conv2d")
    verbs.add_parser(
        "summary", help="a declared network as a table", allow_abbrev=False,
        usage="python -m convtrain summary [as for train.py: network=resnet18 data=cifar10]",
    )  # fmt: skip
    export = verbs.add_parser("export", help="the weights of a run alone, as safetensors")
    export.add_argument("run", help="a run's directory")
    export.add_argument(
        "--checkpoint", default="last", help="last, best, or a file's name in RUN/checkpoints"
    )
    export.add_argument("--out", help="the file to write; RUN/weights.safetensors otherwise")
    add_gradients(verbs)
    sweep = verbs.add_parser("sweep", help="the table of a sweep, finished or not")
    sweep.add_argument("folder", metavar="DIR", help="the sweep's directory")
    diff = verbs.add_parser("diff", help="two runs side by side")
    diff.add_argument("first", metavar="RUN_A", help="a run's directory")
    diff.add_argument("second", metavar="RUN_B", help="another one's")
    again = verbs.add_parser("rerun", help="train a run again; are the bits the same?")
    again.add_argument("run", metavar="RUN", help="the run's directory")
    again.add_argument("--out", metavar="DIR", help="where the new run goes, if not beside it")
    check = verbs.add_parser(
        "check", help="what is wrong with a configuration", allow_abbrev=False,
        usage="python -m convtrain check [--build] [as for train.py: model=nn -m seed=1,2]",
    )  # fmt: skip
    check.add_argument("--build", action="store_true", help="also build it and tell what it takes")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.version:
        from convtrain.command.command_line import versions

        print(versions())
        return 0
    if chosen.verb is None:
        raise ConfigError(f"{parser.prog}: type what to do: {', '.join(verbs.choices)}")
    options = list(verbs.choices[chosen.verb]._option_string_actions)
    if rest and chosen.verb not in ("check", "summary"):
        near = did_you_mean(rest[0], options)
        parser.error(f"{rest[0]}: {chosen.verb} takes no such argument{near}")
    console = make_console(width=None if sys.stdout.isatty() else 140)
    if chosen.verb == "check":
        show_check(console, rest, build=chosen.build)
    elif chosen.verb == "summary":
        show_summary(console, rest)
    elif chosen.verb == "gradients":
        show_gradients(console, chosen)
    elif chosen.verb == "sweep":
        from convtrain.sweeps.table import show_sweep

        show_sweep(Path(chosen.folder))
    elif chosen.verb == "diff":
        from convtrain.use.compare import show_difference

        show_difference(console, chosen.first, chosen.second)
    elif chosen.verb == "rerun":
        return rerun_run(console, chosen.run, chosen.out)
    elif chosen.verb == "export":
        export_run(console, chosen.run, chosen.checkpoint, chosen.out)
    elif chosen.name:
        show_layer(console, chosen.name)
    else:
        show_layers(console)
    return 0


def add_gradients(verbs: "argparse._SubParsersAction[Parser]") -> None:
    gradients = verbs.add_parser("gradients", help="the recorded gradients of a run")
    gradients.add_argument("run", metavar="RUN", help="the run's directory")
    gradients.add_argument(
        "--parameters", metavar="GLOB", action="append", default=[],
        help="only those whose name matches, such as 'stem.*'; may be given again",
    )  # fmt: skip
    gradients.add_argument("--layers", action="store_true", help="a row a layer, not a parameter")
    gradients.add_argument("--out", metavar="DIR", help="where pictures go, if not RUN/gradients")
    gradients.add_argument("--csv", metavar="FILE", help="write a table and no more; - for stdout")
    gradients.add_argument(
        "--table", choices=("steps", "parameters", "layers", "histograms"),
        help="which one --csv writes, if not parameters",
    )  # fmt: skip


def show_layers(console: Console) -> None:
    from convtrain.network.catalogue import describe_all

    table = Table("layer", "family", "functional twin", "inferred", box=box.SIMPLE)
    rows = describe_all()
    for row in rows:
        table.add_row(row.name, row.family, row.twin, ", ".join(row.inferred))
    console.print(table)
    console.print(f"{len(rows)} layers; 'python -m convtrain layers Conv2d' shows one in full")


def show_layer(console: Console, name: str) -> None:
    from convtrain.network.catalogue import describe_named

    layer = describe_named(name)
    table = Table.grid(padding=(0, 2))
    table.add_row("layer", layer.name)
    table.add_row("what for", layer.purpose)
    table.add_row("family", layer.family)
    table.add_row("functional twin", layer.twin)
    table.add_row("arguments", "\n".join(layer.arguments) or "none")
    table.add_row("in YAML", layer.example)
    console.print(table)


def show_summary(console: Console, arguments: Sequence[str]) -> None:
    from convtrain.command.configure import configure
    from convtrain.config.groups.model import DeclaredModel

    config, *others = configure(arguments).configs
    if others:
        raise ConfigError("-m: a summary shows one network; leave it out")
    if not isinstance(config.model, DeclaredModel):
        raise ConfigError(
            f"model={config.model.style}: only a declared network has a summary; "
            f"choose model=functional or model=nn"
        )
    from convtrain.models.build import check_names
    from convtrain.network.resolve import resolve_network
    from convtrain.network.summary import summarize, totals

    network = resolve_network(config.network.layers, config.data.shape, config.network.blocks)
    check_names(network)
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


def show_gradients(console: Console, chosen: argparse.Namespace) -> None:
    from convtrain.gradients.export import STDOUT, write_csv
    from convtrain.gradients.reading import require_run, select_rows
    from convtrain.gradients.record.store import FOLDER, load
    from convtrain.gradients.report import show_report

    if chosen.table and not chosen.csv:
        raise ConfigError(f"--table {chosen.table}: add --csv FILE, which is what it is for")
    if chosen.csv and (chosen.layers or chosen.out):
        raise ConfigError(
            f"--csv {chosen.csv}: writes a table and no more; omit --layers and --out"
        )
    run = require_run(chosen.run)
    with warnings_as_lines():
        if chosen.csv:
            table = chosen.table or "parameters"
            rows = select_rows(load(run, table), chosen.parameters)
            write_csv(rows, chosen.csv)
            if chosen.csv != STDOUT:
                console.print(f"{rows.num_rows:,} rows of {table} in {chosen.csv}")
        else:
            out = Path(chosen.out or run / FOLDER)
            show_report(console, run, globs=chosen.parameters, layers=chosen.layers, out=out)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {message}", file=sys.stderr
        )
        yield


def rerun_run(console: Console, run: str, out: str | None) -> int:
    """Return the exit status: 1 where the bits are not the same."""
    from convtrain.command.resolvers import register_resolvers
    from convtrain.process.signals import Interrupted
    from convtrain.use.rerun import rerun

    register_resolvers()
    try:
        return 0 if rerun(console, run, out) else 1
    except Interrupted as interrupted:
        return interrupted.exit_status


def export_run(console: Console, run: str, checkpoint: str, out: str | None) -> None:
    from convtrain.use.export import export_weights

    file, source, count = export_weights(run, checkpoint=checkpoint, out=out)
    size = file.stat().st_size / 1e6
    console.print(f"{file}: {count} tensors, {size:.1f} MB, from {source.name}")


def show_check(console: Console, arguments: Sequence[str], *, build: bool) -> None:
    from convtrain.command.configure import configure

    for config in configure(arguments, "--build").configs:
        built = make_forecast_table(config) if build else None
        console.print(
            f"ok: data={config.data.name}, network={config.model_name}, "
            f"model={config.model.style}, loss={config.loss.name}, "
            f"optimizer={config.optimizer.name}, trainer.max_epochs={config.trainer.max_epochs}",
        )
        if built is not None:
            console.print(built)


def make_forecast_table(config: "Config") -> Table:
    from convtrain.launch.launcher import quiet_libraries
    from convtrain.process.imports import imports_kept

    with imports_kept():
        quiet_libraries()
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
    prepare_output()
    sys.exit(main())
