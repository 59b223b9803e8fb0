"""``python -m convtrain VERB``. Each verb is a file of ``convtrain/verbs``."""

import argparse
import ast
import pkgutil
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import convtrain.verbs
from convtrain.errors import ConfigError, ConvtrainError, did_you_mean
from convtrain.process.output import print_error
from convtrain.process.signals import Interrupted
from convtrain.process.startup import running_as_command
from convtrain.program import as_typed


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse prints the usage and exits."""

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"^argument (\S+): ", r"\1: ", message)
        raise ConfigError(f"{text}; {self.prog} --help shows what can be typed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status."""
    try:
        return run_verb(sys.argv[1:] if arguments is None else arguments)
    except ConvtrainError as error:
        print_error(error)
        return error.exit_status
    except Interrupted as interrupted:
        return interrupted.exit_status


def run_verb(arguments: Sequence[str]) -> int:
    """Run a verb; return the exit status. It raises the errors that ``main`` prints."""
    verbs = verbs_by_name()
    if not arguments or arguments[0] not in verbs:
        return _without_verb(arguments, verbs)
    name, *typed = arguments
    verb = import_module(f"convtrain.verbs.{name}")
    parser = Parser(
        prog=f"{program()} {name}", description=as_typed(verb.__doc__ or ""), allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.add_arguments(parser)
    chosen, rest = parser.parse_known_args(typed)
    if "overrides" in chosen:  # the verb accepts the arguments of train.py
        chosen.overrides = rest
    elif rest:
        near = did_you_mean(rest[0], parser._option_string_actions)
        parser.error(f"{rest[0]}: {name} takes no such argument{near}")
    for key, value in vars(chosen).items():  # such as "$UNSET" in a script
        if value == "" or (isinstance(value, list) and "" in value):
            parser.error(f"{key.replace('_', '-')}: is empty; give a value, or leave it out")
    status: int = verb.run(chosen)
    return status


def program() -> str:
    """Return what a user types before a verb."""
    return as_typed("python -m convtrain")


def verbs_by_name() -> dict[str, str]:
    """Return the first line of each verb's docstring, without importing the verbs."""
    folder = Path(str(convtrain.verbs.__file__)).parent
    found = {}
    for module in pkgutil.iter_modules([str(folder)]):
        text = (folder / f"{module.name}.py").read_text(encoding="utf-8")
        found[module.name] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def _without_verb(arguments: Sequence[str], verbs: dict[str, str]) -> int:
    listed = "\n".join(f"  {name:10} {line}" for name, line in verbs.items())
    parser = Parser(
        prog=program(), usage=f"{program()} VERB ...", description=f"Verbs:\n{listed}",
        epilog=f"Example: {program()} VERB --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="store_true", help="show the installed versions")
    parser.add_argument("verb", metavar="VERB", nargs="?", choices=verbs, help=argparse.SUPPRESS)
    if parser.parse_args(arguments).version:
        from convtrain.command.help import versions

        print(versions())
        return 0
    raise ConfigError(f"{program()}: type what to do: {', '.join(verbs)}")


def command() -> NoReturn:
    """Do what was typed, and exit with its status."""
    with running_as_command():
        sys.exit(main())


if __name__ == "__main__":
    command()
