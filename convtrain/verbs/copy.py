"""Copy a file of configs/ that convtrain ships into your own ./configs, to be changed there.

Example: python -m convtrain copy network/resnet8 configs/network/mine.yaml
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from convtrain.errors import ConfigError, closest
from convtrain.process.atomic import write_atomically
from convtrain.text import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "choice", metavar="GROUP/NAME", help="what to copy, such as network/resnet8"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="the copy, if not of the same name")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.run.commands import CONFIGS

    shipped = {
        str(file.relative_to(CONFIGS).with_suffix("")): file for file in CONFIGS.rglob("*.yaml")
    }
    choice = arguments.choice.removesuffix(".yaml").replace("=", "/")
    if choice not in shipped:
        near = _closest(choice, shipped)
        advice = f"did you mean {near}?" if near else "list shows them all"
        raise ConfigError(f"{arguments.choice}: convtrain ships no such file; {advice}")
    file = Path(arguments.file or Path("configs", f"{choice}.yaml"))
    if file.suffix != ".yaml":
        raise ConfigError(f"{file}: must end in .yaml; type {file}.yaml")
    if file.exists():
        raise ConfigError(f"{file}: exists already; give another FILE, or remove it")
    write_atomically(file, shipped[choice].read_text(encoding="utf-8"))
    make_console().print(f"{file}: a copy of convtrain's {choice}")
    return 0


def _closest(choice: str, shipped: Iterable[str]) -> str | None:
    """Return the closest name, or the one whose last part is closest."""
    by_name = {name.rpartition("/")[2]: name for name in shipped}
    near = closest(choice.rpartition("/")[2], by_name)
    return closest(choice, shipped) or (near and by_name[near])
