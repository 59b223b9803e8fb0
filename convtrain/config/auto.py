"""``resume=auto``: the newest unfinished run of the same configuration, or a new one."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from convtrain.config.check import resolve_config
from convtrain.config.command_line import CommandLine
from convtrain.config.compose import compose_leniently
from convtrain.config.names import LOGS
from convtrain.config.resume import CHANGEABLE
from convtrain.errors import ConfigError
from convtrain.text import as_hydra_value

AUTO = "resume=auto"


def choose_run(arguments: Sequence[str]) -> list[str]:
    """Return the command line with ``resume=auto`` replaced by the run that is meant.

    A run is unfinished if it has a checkpoint and no result. It has the same configuration if no
    more differs than may be changed when a run is resumed; what was typed of that is kept. It is
    looked for in ``logs/runs``, and where ``hydra.run.dir`` says; there, a finished one is meant
    as well, which is not trained again.
    """
    if AUTO not in arguments:
        return list(arguments)
    command = CommandLine.parse(arguments)
    typed = [text for text in command.overrides if text != AUTO]
    new = [text for text in arguments if text != AUTO]
    if command.multirun:
        print(
            f"{AUTO}: leave it out; the same command goes on with a sweep",
            file=sys.stderr,
        )
        sys.exit(ConfigError.exit_status)
    try:
        (composed,) = compose_leniently(replace(command, overrides=typed))
        config = resolve_config(composed.config, typed, composed.origin)
    except ConfigError:  # who checks the command line next tells it
        return new
    places = [Path(str(o.value())) for o in composed.overrides if _key(o) == "hydra.run.dir"]
    plain = config.model_dump(by_alias=True)
    run = newest_unfinished(plain, *places) or finished_there(plain, *places)
    if run is None:
        print(f"{AUTO}: no unfinished run of this configuration; a new one begins", file=sys.stderr)
        return new
    print(f"{AUTO}: goes on with {run}", file=sys.stderr)
    fixed = {o.input_line for o in composed.overrides if not _may_stay(_key(o))}
    return [text for text in new if text not in fixed] + [f"resume={as_hydra_value(str(run))}"]


def newest_unfinished(config: Mapping[str, Any], place: Path | None = None) -> Path | None:
    """Return the directory of the newest unfinished run of a configuration, if there is one."""
    wanted, found = _fixed(config), list(Path(LOGS, "runs").glob("*/*/config.yaml"))
    if place is not None:
        found.append(place / "config.yaml")
    for path in sorted(filter(Path.is_file, found), key=lambda p: p.stat().st_mtime, reverse=True):
        run = path.parent
        unfinished = not (run / "result.json").exists() and any(run.glob("checkpoints/*.ckpt"))
        if unfinished and _fixed(_read(path)) == wanted:
            return run
    return None


def finished_there(config: Mapping[str, Any], place: Path | None = None) -> Path | None:
    """Return the directory that was given, if a run of the configuration is finished there."""
    if place is None or not (place / "result.json").is_file():
        return None
    return place if _fixed(_read(place / "config.yaml")) == _fixed(config) else None


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _fixed(config: Any, prefix: str = "") -> Any:
    """Return what of a configuration makes a run the run that it is."""
    if not isinstance(config, Mapping):
        return list(config) if isinstance(config, tuple) else config
    named = {f"{prefix}{key}": value for key, value in config.items()}
    if named.get("trainer.strategy") == "ddp":  # what auto comes to with several devices
        named["trainer.strategy"] = "auto"
    return {k: _fixed(v, f"{k}.") for k, v in named.items() if k not in CHANGEABLE}


def _key(override: Any) -> str:
    return str(override.key_or_group)


def _may_stay(key: str) -> bool:
    return key in CHANGEABLE or (key.startswith("hydra.") and key != "hydra.run.dir")
