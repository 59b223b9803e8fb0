"""The commands that convtrain prints, each of which works when it is pasted where it is printed.

So a command names script, interpreter and folders relative to the directory in which the user typed
the first command, keeps options such as ``--config-dir``, and quotes for the shell and for Hydra.
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

HOME = Path(__file__).resolve().parents[2]
"""The folder of train.py."""

CONFIGS = HOME / "configs"
PATH_OPTIONS = ("--config-dir=", "--config-path=")


def train_command(*arguments: str) -> str:
    """Return ``python train.py ARGUMENTS`` for the shell; paths in options are absolute."""
    shown = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        is_path = argument.startswith(PATH_OPTIONS)
        shown.append(f"{option}={relative(Path(value))}" if is_path else argument)
    return shlex.join([_program("python"), relative(HOME / "train.py"), *shown])


def resume_command(run_dir: Path, *overrides: str) -> str:
    """Return the command that resumes a run, with more overrides."""
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
    """Return ``key=value``, quoted for Hydra; the command as a whole is quoted for the shell."""
    return f"{key}={as_hydra_value(value)}"


def relative(path: Path) -> str:
    """Return a path as one types it in the directory in which the command was typed."""
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
    return f"./{path}" if path.startswith("-") else path  # no program takes it for an option


def _program(name: str) -> str:
    """Return a program's name if the shell finds this interpreter's; its path otherwise."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.exists() or (found and Path(found).parent.resolve() == own.parent.resolve()):
        return name
    return relative(own)


def _is_installed() -> bool:
    from importlib import metadata  # which takes a while

    try:
        return metadata.distribution("convtrain") is not None
    except metadata.PackageNotFoundError:
        return False


# --- the arguments that were typed ----------------------------------------------------------------


def key_of(argument: str) -> str:
    """Return the key of an override, without the ``+`` or ``~`` before it."""
    return argument.partition("=")[0].lstrip("+~")


def is_option(argument: str) -> bool:
    """Tell whether an argument, rather than to override the job, names folders of configs."""
    return argument.startswith("--") or key_of(argument).startswith("hydra.searchpath")


def options_of(hydra: "HydraConf") -> list[str]:
    """Return the arguments, besides the job's overrides, with which a command finds its configs.

    Args:
        hydra: Hydra's own node, in a job or in a sweep.
    """
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
    """Return the overrides in Hydra's list as they were typed; the list would resolve them."""
    plain = OmegaConf.to_container(typed, resolve=False)
    assert isinstance(plain, list)
    return plain


def of_resumed(stored: Iterable[str], typed: Iterable[str]) -> list[str]:
    """Return the arguments of a resumed run: the stored ones, with the typed ones in their place.

    Args:
        stored: the arguments that started the run, from its ``overrides.yaml``.
        typed: the arguments that resume it.
    """
    changed = [text for text in typed if not is_option(text) and key_of(text) != "resume"]
    keys = {key_of(text) for text in changed}
    return [text for text in stored if key_of(text) not in keys] + changed


def without(arguments: Iterable[str], *groups: str) -> list[str]:
    """Return arguments without those that set a group, a key, or anything below it."""
    prefixes = tuple(f"{group}." for group in groups)
    return [text for text in arguments if not f"{key_of(text)}.".startswith(prefixes)]
