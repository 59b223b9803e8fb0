"""List the catalogue of layers, or show one layer in full.

Example: python -m convtrain layers Conv2d
"""

import argparse

from rich import box
from rich.table import Table

from convtrain.errors import ConfigError
from convtrain.program import as_typed
from convtrain.text import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", help="the layer to show, such as Conv2d or mypackage.MyLayer"
    )
    parser.add_argument("trust", nargs="?", help="'trust=[mypackage]', to show a layer of yours")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.network.catalogue import describe_all, describe_named

    console = make_console()
    if arguments.name:
        layer = describe_named(arguments.name, _packages(arguments.trust))
        table = Table.grid(padding=(0, 2))
        table.add_row("layer", layer.name)
        table.add_row("what for", layer.purpose)
        table.add_row("family", layer.family)
        table.add_row("functional twin", layer.twin)
        table.add_row("arguments", "\n".join(layer.arguments) or "none")
        table.add_row("in YAML", layer.example)
        console.print(table)
        return 0
    layers = describe_all()
    table = Table("layer", "family", "functional twin", "inferred", box=box.SIMPLE)
    for layer in layers:
        table.add_row(layer.name, layer.family, layer.twin, ", ".join(layer.inferred))
    console.print(table)
    example = as_typed("python -m convtrain layers Conv2d")
    console.print(f"{len(layers)} layers; '{example}' shows one in full")
    return 0


def _packages(override: str | None) -> list[str]:
    """Return the packages that ``trust=[mypackage]`` lists."""
    from convtrain.command.overrides import parse_override

    if override is None:
        return []
    parsed = parse_override(override)
    packages = parsed.value() if parsed is not None and parsed.key_or_group == "trust" else None
    if not isinstance(packages, list):
        raise ConfigError(f"{override}: expected 'trust=[mypackage]'")
    return [str(package) for package in packages]
