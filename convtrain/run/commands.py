"""The commands that convtrain prints. A user can paste each into the shell that printed it.

Paths are relative to that shell's directory; values are quoted for Hydra and for the shell.
"""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from convtrain import program
from convtrain.errors import ConfigError
from convtrain.process.ranks import rank_info
from convtrain.program import HOME, relative, typed_in
from convtrain.text import as_hydra_value

if TYPE_CHECKING:
    from hydra.conf import HydraConf

_INSIDE = HOME / "convtrain" / "configs"  # a wheel has here what is beside train.py in a clone
SHIPPED = _INSIDE.parent if _INSIDE.is_dir() else HOME
CONFIGS = SHIPPED / "configs"
PATH_OPTIONS = ("--config-dir=", "--config-path=")


def train_command(*arguments: str, cwd: Path | None = None) -> str:
    """Return the command that trains with these arguments.

    Args:
        arguments: options and overrides; the paths in the options are absolute.
        cwd: where the overrides were typed, which relative paths in them start from, if not here.
    """
    here, there = typed_in(), _there(cwd)
    shown = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        is_path = argument.startswith(PATH_OPTIONS)
        shown.append(f"{option}={relative(Path(value), there)}" if is_path else argument)
    processes = _started_by_torchrun()
    words = program.torchrun_words(processes) if processes else program.train_words(there)
    command = shlex.join([*words, *shown])
    change = shlex.join(["cd", _as_argument(relative(there))])
    return command if there == here else f"{change} && {command}"


def _there(cwd: Path | None) -> Path:
    here = typed_in()
    return cwd if cwd is not None and cwd.is_dir() and cwd.resolve() != here.resolve() else here


def _started_by_torchrun() -> int:
    """Return how many processes torchrun has started, all on this machine, or else 0."""
    with suppress(ConfigError):
        rank = rank_info()
        if rank.launcher == "torchrun" and rank.num_nodes == 1:
            return rank.world_size
    return 0


def resume_command(run_dir: Path, *overrides: str, cwd: Path | None = None) -> str:
    """Return the command that resumes a run, with additional overrides; ``cwd`` is as above."""
    there = _there(cwd)
    return train_command(override("resume", relative(run_dir, there)), *overrides, cwd=there)


def verb_command(verb: str, *paths: Path) -> str:
    """Return the command that does something with a run or a sweep, and with other paths."""
    return shlex.join([*program.verb_words(verb), *(_as_argument(relative(p)) for p in paths)])


def tensorboard_command(folder: Path) -> str:
    words = program.script_words("tensorboard", "tensorboard.main")
    return shlex.join([*words, "--logdir", _as_argument(relative(folder))])


def override(key: str, value: str) -> str:
    """Return ``key=value``, quoted for Hydra but not for the shell."""
    return f"{key}={as_hydra_value(value)}"


def _as_argument(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path  # or a program reads it as an option


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


def longer(epochs: int, max_epochs: int, max_steps: int | None) -> list[str]:
    """Return the overrides that train twice as long as this many epochs and these limits."""
    found = [f"trainer.max_epochs={max(2 * epochs, 2, max_epochs)}"]
    return [*found, f"trainer.max_steps={2 * max_steps}"] if max_steps else found


def without(arguments: Iterable[str], *groups: str) -> list[str]:
    """Remove the arguments that set one of these groups or keys, or a key below them."""
    prefixes = tuple(f"{group}." for group in groups)
    return [text for text in arguments if not f"{key_of(text)}.".startswith(prefixes)]
