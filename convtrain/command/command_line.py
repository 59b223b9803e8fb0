"""What was typed after ``train.py``: options and overrides in any order, as Hydra reads them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import create_functions
from hydra.core.override_parser.types import Override

from convtrain import __version__
from convtrain.command.overrides import at_home, parse_override
from convtrain.config.messages import brief, what_to_type
from convtrain.errors import ConfigError, did_you_mean
from convtrain.run.commands import CONFIGS
from convtrain.text import quoted


@dataclass(frozen=True)
class CommandLine:
    """A command, taken apart.

    Attributes:
        arguments: the whole command as Hydra reads it: options, then overrides.
        overrides: with quotes where Hydra's grammar needs them.
        trains: false for ``--help``, ``--cfg`` and the like.
    """

    arguments: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    config_dir: Path = CONFIGS
    config_name: str = "train"
    extra_dir: Path | None = None
    multirun: bool = False
    trains: bool = True
    asks_for_help: bool = False

    @classmethod
    def parse(cls, arguments: Sequence[str], *others: str) -> "CommandLine":
        """Read arguments.

        Args:
            arguments: what was typed.
            others: options that the caller has read, one of which may be meant.

        Raises:
            ConfigError: an option is unknown or incomplete, a folder does not exist, a pickled job
                is to run again, or something is not UTF-8.
        """
        _refuse_what_is_no_text(arguments)
        parser = get_args_parser()
        parser.error = _refuse_usage  # type: ignore[assignment]
        args, unknown = parser.parse_known_intermixed_args(list(arguments))
        if unknown:
            raise ConfigError(
                _unknown_option(unknown[0], [*parser._option_string_actions, *others])
            )
        if args.experimental_rerun is not None:
            raise ConfigError(
                f"--experimental-rerun={args.experimental_rerun}: a pickle can run any code; "
                f"go on with a run by resume=RUN_DIRECTORY"
            )
        for option in ("config_path", "config_dir"):
            folder = getattr(args, option)
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(f"--{option.replace('_', '-')}={folder}: no such folder")
        if args.config_path is not None:  # Hydra would look for it beside train.py
            args.config_path = str(Path(args.config_path).resolve())
        overrides = [readable(text) for text in args.overrides]
        options = [_option(name, value) for name, value in vars(args).items() if value]
        return cls(
            arguments=[text for text in options if text] + overrides,
            overrides=overrides,
            config_dir=CONFIGS if args.config_path is None else Path(args.config_path).resolve(),
            config_name=args.config_name or "train",
            extra_dir=Path(args.config_dir).resolve() if args.config_dir else None,
            multirun=args.multirun or "hydra.mode=MULTIRUN" in args.overrides,
            trains=not (args.help or args.hydra_help or args.cfg or args.info)
            and not args.shell_completion,
            asks_for_help=args.help,
        )

    @property
    def folders(self) -> list[Path]:
        """Where configuration files are looked for, first the ones that win."""
        return [folder for folder in (self.config_dir, self.extra_dir) if folder]

    def parsed(self, mistakes: list[str]) -> list[Override]:
        """Return the overrides that can be read; ``mistakes`` gains a line for each other one."""
        found = [(text, parse_override(text)) for text in self.overrides]
        mistakes += [_unreadable(text) for text, override in found if override is None]
        return [override for _, override in found if override is not None]


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Refuse names that are not UTF-8: neither config.yaml nor TensorBoard can hold them."""
    try:
        here = os.getcwd()  # noqa: PTH109 (as text, whatever it holds)
    except OSError as error:
        raise ConfigError(f"the working directory: {error.strerror}; change to another") from error
    for what, text in [("the working directory ", here), *(("", text) for text in arguments)]:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            shown = text.encode(errors="backslashreplace").decode()
            raise ConfigError(
                f"{what}{shown}: is not UTF-8; rename the folder, or make a link to it: ln -s"
            )


def readable(text: str) -> str:
    """Return an override as Hydra's grammar reads it, with ``~`` for the user's folder resolved.

    The grammar knows ASCII letters and a few signs; what else a value holds stands in quotes. A
    comma separates values, alone or in a list, so it is quoted by whoever means the character.
    """
    key, equals, value = text.partition("=")
    override = parse_override(text)
    if override is not None:
        typed = None if override.is_sweep_override() else override.value()
        is_home = isinstance(typed, str) and typed != at_home(typed)
        return f"{key}={quoted(at_home(str(typed)))}" if is_home else text
    is_list = value.startswith("[") and value.endswith("]")
    inside = value[1:-1] if is_list else value
    calls = inside.startswith(tuple(f"{name}(" for name in create_functions().definitions))
    if (
        not equals
        or calls
        or inside.startswith(("=", "'", '"', "{"))
        or ((is_list or "," in inside) and re.search(r"[\[\]{}()'\"]", inside))
    ):
        return text  # whoever types quotes or brackets has to finish them
    parts = inside.split(",") if is_list or "," in inside else [inside]
    items = ",".join(_readable_item(part.strip()) for part in parts)
    again = f"{key}=[{items}]" if is_list else f"{key}={items}"
    return text if parse_override(again) is None else again


def _readable_item(item: str) -> str:
    is_plain = parse_override(f"key={item}") is not None
    return item if is_plain else quoted(at_home(item))


def _unreadable(text: str) -> str:
    key, equals, value = text.partition("=")
    if value.startswith("="):
        advice = f"type {key}={value.lstrip('=')}"
    elif equals and value and parse_override(f"{key}=1") is not None:
        advice = f"type {key}={quoted(value)}, and quote the whole for the shell"
    else:
        advice = "such as seed=2"
    return f"{brief(text) or repr(text)}: cannot be read as key=value; {advice}"


def _option(name: str, value: object) -> str | None:
    flag = f"--{name.replace('_', '-')}"
    return None if name == "overrides" else flag if value is True else f"{flag}={value}"


def _refuse_usage(message: str) -> None:
    text = re.sub(r"^argument (\S+): ", r"\1: ", message)
    raise ConfigError(f"{text}; python train.py --help shows what can be typed")


def _unknown_option(option: str, options: list[str]) -> str:
    name = option.partition("=")[0]
    advice = did_you_mean(name, options) if name.startswith("--") else ""
    if (known := what_to_type(name.lstrip("-").replace("-", "_"))) is not None:
        advice = "; " + re.sub(r"did you mean (.*)\?", r"type \1=VALUE", known)
    return f"{name}: no such option{advice or '; values are typed as key=value, such as seed=2'}"


def versions() -> str:
    """Return the versions that a report of a fault should name."""
    packages = ("torch", "torchvision", "pytorch-lightning", "hydra-core")
    found = [f"{name} {metadata.version(name)}" for name in packages]
    return ", ".join([f"convtrain {__version__}", *found])
