"""The commands that convtrain prints. A user can paste each into the shell that printed it.

Paths are relative to that shell's directory; values are quoted for Hydra and for the shell.
"""

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from convtrain.text import as_hydra_value

if TYPE_CHECKING:
    from hydra.conf import HydraConf

HOME = Path(__file__).resolve().parents[2]  # the folder of train.py
_INSTALLED = HOME / "convtrain" / "configs"  # the wheel maps the clone's folder to here
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else HOME / "configs"
PATH_OPTIONS = ("--config-dir=", "--config-path=")


def train_command(*arguments: str) -> str:
    """Return ``python train.py ARGUMENTS``; the paths in the given options are absolute."""
    shown = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        is_path = argument.startswith(PATH_OPTIONS)
        shown.append(f"{option}={relative(Path(value))}" if is_path else argument)
    return shlex.join([_program("python"), relative(HOME / "train.py"), *shown])


def resume_command(run_dir: Path, *overrides: str) -> str:
    """Return the command that resumes a run, with additional overrides."""
    return train_command(override("resume", relative(run_dir)), *overrides)


def verb_command(verb: str, folder: Path) -> str:
    """Return ``python -m convtrain VERB FOLDER``."""
    command = [_program("python"), "-m", "convtrain", verb, _as_argument(relative(folder))]
    importable = typed_in().resolve() == HOME or _is_installed()
    before = [] if importable else ["env", f"PYTHONPATH={relative(HOME)}"]
    return shlex.join([*before, *command])


def tensorboard_command(folder: Path) -> str:
    return shlex.join([_program("tensorboard"), "--logdir", _as_argument(relative(folder))])


def override(key: str, value: str) -> str:
    """Return ``key=value``, quoted for Hydra but not for the shell."""
    return f"{key}={as_hydra_value(value)}"


def relative(path: Path) -> str:
    """Return a path relative to ``typed_in()``, or the absolute path if it is outside."""
    here = typed_in()
    path = here / path
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def typed_in() -> Path:
    """Return the directory in which the command was typed, also under ``hydra.job.chdir``."""
    hydra_config = sys.modules.get("hydra.core.hydra_config")
    if hydra_config is not None and hydra_config.HydraConfig.initialized():
        return Path(hydra_config.HydraConfig.get().runtime.cwd)
    return Path.cwd()


def _as_argument(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path  # or a program reads it as an option


def _program(name: str) -> str:
    """Return a program's name if the shell finds it beside this interpreter, or else its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.exists() or (found and Path(found).parent.resolve() == own.parent.resolve()):
        return name
    return relative(own)


def _is_installed() -> bool:
    from importlib import metadata  # slow to import

    try:
        return metadata.distribution("convtrain") is not None
    except metadata.PackageNotFoundError:
        return False


# --- arguments that the user typed ----------------------------------------------------------------


def key_of(argument: str) -> str:
    """Return the key of an override, without the ``+`` or ``~`` before it."""
    return argument.partition("=")[0].lstrip("+~")


def is_option(argument: str) -> bool:
    """Tell whether an argument names folders of configs and does not override the job."""
    return argument.startswith("--") or key_of(argument).startswith("hydra.searchpath")


def options_of(hydra: "HydraConf") -> list[str]:
    """Return the options with which the command finds its configs, from Hydra's own node."""
    found = []
    flags = {"main": "--config-path", "command-line": "--config-dir"}
    for source in hydra.runtime.config_sources:
        is_ours = source.schema != "file" or Path(source.path) == CONFIGS
        if not is_ours and source.provider in flags:
            found.append(f"{flags[source.provider]}={source.path}")
    if (name := hydra.job.config_name) not in (None, "train"):
        found.append(f"--config-name={name}")
    return found + [text for text in overrides_in(hydra.overrides.hydra) if is_option(text)]


def overrides_in(typed: object) -> list[str]:
    """Return the overrides in Hydra's list as the user typed them, without interpolation."""
    plain = OmegaConf.to_container(typed, resolve=False)
    assert isinstance(plain, list)
    return plain


def of_resumed(stored: Iterable[str], typed: Iterable[str]) -> list[str]:
    """Return the stored arguments, with the overrides typed for ``resume`` in place of theirs."""
    changed = [text for text in typed if not is_option(text) and key_of(text) != "resume"]
    keys = {key_of(text) for text in changed}
    return [text for text in stored if key_of(text) not in keys] + changed


def without(arguments: Iterable[str], *groups: str) -> list[str]:
    """Remove the arguments that set one of these groups or keys, or a key below them."""
    prefixes = tuple(f"{group}." for group in groups)
    return [text for text in arguments if not f"{key_of(text)}.".startswith(prefixes)]
