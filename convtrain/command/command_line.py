"""Parse the arguments of ``train.py``: options and overrides in any order, as Hydra reads them."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from convtrain.command.overrides import choices_apart, parse_override, readable
from convtrain.config.mistakes import brief
from convtrain.errors import ConfigError, did_you_mean
from convtrain.program import as_typed
from convtrain.run.commands import CONFIGS
from convtrain.text import quoted


@dataclass(frozen=True)
class CommandLine:
    """A parsed command."""

    overrides: list[str] = field(default_factory=list)  # quoted where Hydra's grammar needs it
    config_dir: Path = CONFIGS
    config_name: str = "train"
    extra_dir: Path | None = None  # --config-dir
    own_dir: Path | None = None  # ./configs, unless it is the one of convtrain
    multirun: bool = False
    options: argparse.Namespace = field(default_factory=argparse.Namespace)  # Hydra's own

    @classmethod
    def parse(cls, arguments: Sequence[str], *others: str) -> "CommandLine":
        """Parse arguments; ``others`` are options of the caller, one of which may be misspelt.

        Raises:
            ConfigError: an option is unknown, incomplete or contradictory, a folder does not exist,
                a pickled job is to be rerun, or something is not UTF-8.
        """
        _refuse_other_encodings(arguments)
        parser = get_args_parser()
        parser.error = _refuse_usage  # type: ignore[method-assign]
        options, unknown = parser.parse_known_intermixed_args(list(arguments))
        if unknown:
            known = [*parser._option_string_actions, *others]
            raise ConfigError(_unknown_option(unknown[0], known))
        if options.experimental_rerun is not None:
            raise ConfigError(
                f"--experimental-rerun={options.experimental_rerun}: a pickle can run any code; "
                f"resume a run by resume=RUN_DIRECTORY"
            )
        _refuse_contradictions(options)
        folders = [_folder(options, name) for name in ("config_path", "config_dir")]
        return cls(
            overrides=[readable(t) for text in options.overrides for t in choices_apart(text)],
            config_dir=folders[0] or CONFIGS,
            config_name=options.config_name or "train",
            extra_dir=folders[1],
            own_dir=None if folders[0] else own_folder(),
            multirun=options.multirun or "hydra.mode=MULTIRUN" in options.overrides,
            options=options,
        )

    @property
    def trains(self) -> bool:
        """Whether there is more to do than to answer ``--help``, ``--cfg`` and the like."""
        answers = ("help", "hydra_help", "cfg", "info", "shell_completion")
        return not any(getattr(self.options, name, None) for name in answers)

    @property
    def folders(self) -> list[Path]:
        """The folders with configuration files, in order of precedence."""
        return [folder for folder in (self.extra_dir, self.own_dir, self.config_dir) if folder]

    def parsed(self, mistakes: list[str]) -> list[Override]:
        """Return the overrides that can be read; ``mistakes`` gains a line for each other one."""
        found = [(text, parse_override(text)) for text in self.overrides]
        mistakes += [_unreadable(text) for text, override in found if override is None]
        return [override for _, override in found if override is not None]


def _refuse_contradictions(options: argparse.Namespace) -> None:
    if options.resolve and not (options.cfg or options.help):
        raise ConfigError("--resolve: resolves what --cfg prints; add --cfg job")
    modes = ("cfg", "info", "multirun", "run", "shell_completion")
    typed = [f"--{mode.replace('_', '-')}" for mode in modes if getattr(options, mode)]
    if len(typed) > 1 and not (options.help or options.hydra_help):
        raise ConfigError(f"{typed[0]}: cannot be combined with {typed[1]}; leave one out")


def _folder(options: argparse.Namespace, name: str) -> Path | None:
    folder = getattr(options, name)
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"--{name.replace('_', '-')}={folder}: no such folder")
    return Path(folder).resolve() if folder is not None else None


def own_folder() -> Path | None:
    """Return ``./configs``, unless there is none or it is convtrain's own."""
    folder = Path("configs").resolve()
    return folder if folder.is_dir() and not folder.samefile(CONFIGS) else None


def _refuse_other_encodings(arguments: Sequence[str]) -> None:
    """Refuse text that is not UTF-8: neither config.yaml nor TensorBoard can hold it."""
    try:
        here = os.getcwd()  # noqa: PTH109 (as text, which may be invalid)
    except OSError as error:
        raise ConfigError(f"the working directory: {error.strerror}; change to another") from error
    for what, text in [("the working directory ", here), *(("", text) for text in arguments)]:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            shown = text.encode(errors="backslashreplace").decode()
            raise ConfigError(
                f"{what}{shown}: is not UTF-8; rename the folder, or make a link to it: ln -s"
            )


def _unreadable(text: str) -> str:
    key, equals, value = text.partition("=")
    if value.startswith("="):
        advice = f"type {key}={value.lstrip('=')}"
    elif equals and value and parse_override(f"{key}=1") is not None:
        advice = f"type {key}={quoted(value)}, and quote the whole for the shell"
    else:
        advice = "such as seed=2"
    return f"{brief(text) or repr(text)}: cannot be read as key=value; {advice}"


def _refuse_usage(message: str) -> NoReturn:
    text = re.sub(r"^argument (\S+): ", r"\1: ", message)
    raise ConfigError(f"{text}; {as_typed('python train.py --help')} shows what can be typed")


def _unknown_option(option: str, options: list[str]) -> str:
    from convtrain.config.messages import what_to_type

    name = option.partition("=")[0]
    advice = did_you_mean(name, options) if name.startswith("--") else ""
    if (known := what_to_type(name.lstrip("-").replace("-", "_"))) is not None:
        advice = "; " + re.sub(r"did you mean (.*)\?", r"type \1=VALUE", known)
    return f"{name}: no such option{advice or '; values are typed as key=value, such as seed=2'}"
