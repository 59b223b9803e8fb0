"""The identity, the directory and the jobs of a sweep."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from convtrain.command.resolvers import IDENTITY
from convtrain.config.dotted import leaves
from convtrain.config.identity import NEUTRAL, hashed, role_of
from convtrain.errors import ConfigError
from convtrain.process.hardware import cores, gpus_of
from convtrain.text import as_omegaconf

if TYPE_CHECKING:
    from convtrain.config.schema import Config

RECORD = "sweep.json"  # in the sweep's directory
CALLBACK = "hydra.callbacks.sweep_table"
LOCAL_GPUS = "local_gpus"
EXTENDABLE = ("n_trials", "storage", "study_name", "max_failure_rate")


def sweep_settings(
    configs: "Sequence[Config]",
    hydra: DictConfig,
    overrides: list[Override],
    shared: Mapping[str, object],
) -> dict[str, object]:
    """Return what a sweep sets in Hydra's node, in its own and in that of each of its jobs.

    Args:
        shared: the configuration without what is swept, before interpolation. The directory follows
            from it, so that the same command finds its sweep again.

    Raises:
        ConfigError: the directory cannot be used, or holds another sweep.
    """
    identity = _identity(shared, hydra, overrides)
    folder = str(OmegaConf.select(hydra, "sweep.dir")).replace(IDENTITY, identity)
    _refuse_another(Path(folder), identity)
    if "%" in folder and "submitit_folder" in hydra.launcher:
        raise ConfigError(f"hydra.sweep.dir={folder}: submitit and SLURM replace %j and the like")
    gpus = gpus_in_turn(configs, hydra)
    settings: dict[str, object] = {
        "hydra.mode": RunMode.MULTIRUN,
        "hydra.sweep.dir": as_omegaconf(folder),
        f"{CALLBACK}.identity": identity,
        f"{CALLBACK}.jobs": number_of_jobs(hydra, overrides),
        f"{CALLBACK}.swept": swept_keys(overrides),
        f"{CALLBACK}.gpus": gpus,
    }
    if choice_of(hydra, "launcher") == LOCAL_GPUS:
        settings["hydra.launcher.n_jobs"] = len(gpus or ())
    return settings


def _identity(shared: Mapping[str, object], hydra: DictConfig, overrides: list[Override]) -> str:
    """Hash the names of the swept keys and the values of all others: a sweep can be extended."""
    # Another interval is another search.
    intervals = sorted(str(o.input_line) for o in overrides if o.is_interval_sweep())
    sweeper = OmegaConf.to_container(hydra.sweeper, resolve=True, enum_to_str=True)
    assert isinstance(sweeper, dict)
    fixed = {str(key): value for key, value in sweeper.items() if key not in EXTENDABLE}
    trained = {key: value for key, value in leaves(shared) if role_of(key) != NEUTRAL}
    return hashed([swept_keys(overrides), intervals, fixed, trained])


def _refuse_another(folder: Path, identity: str) -> None:
    try:
        there = json.loads((folder / RECORD).read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if there != identity:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds another sweep, or its configuration has changed "
            f"since; give another directory, or leave hydra.sweep.dir out"
        )


def choice_of(hydra: DictConfig, group: str) -> str:
    """Return the choice of ``hydra/launcher`` or ``hydra/sweeper``."""
    return str(hydra.runtime.choices.get(f"hydra/{group}"))


def is_search(hydra: DictConfig) -> bool:
    """Tell whether Optuna proposes the values."""
    return str(hydra.sweeper.get("_target_")).startswith("hydra_plugins.hydra_optuna_sweeper.")


def is_grid(hydra: DictConfig) -> bool:
    return str(hydra.sweeper.get("sampler", {}).get("_target_")).endswith("GridSampler")


def gpus_in_turn(configs: "Sequence[Config]", hydra: DictConfig) -> list[str] | None:
    """Return the GPUs that the jobs take turns to use, or None if they do not."""
    chosen = configs[0].sweep.gpus
    if chosen is None and choice_of(hydra, "launcher") != LOCAL_GPUS:
        return None
    return gpus_of(chosen)


def swept_keys(overrides: list[Override]) -> list[str]:
    return sorted({o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()})


def number_of_jobs(hydra: DictConfig, overrides: Sequence[Override]) -> int | None:
    """Return how many jobs a sweep has, or None for an unknown sweeper."""
    swept = [override for override in overrides if override.is_sweep_override()]
    if is_search(hydra):
        trials = int(hydra.sweeper.n_trials)
        return min(trials, _grid_size(swept)) if is_grid(hydra) else trials
    if not str(hydra.sweeper.get("_target_")).endswith("BasicSweeper"):
        return None
    return math.prod(len(list(override.sweep_string_iterator())) for override in swept)


def _grid_size(swept: Sequence[Override]) -> int:
    """Return the size of Optuna's grid, which rounds the length of a range down."""

    def count(override: Override) -> int:
        value = override.value()
        if override.is_range_sweep() and not value.shuffle:  # type: ignore[union-attr]
            return int((value.stop - value.start) // value.step)  # type: ignore[union-attr, operator]
        return len(list(override.sweep_string_iterator()))

    return math.prod(count(override) for override in swept if not override.is_interval_sweep())


def jobs_at_once(hydra: HydraConf, jobs: int | None, gpus: Sequence[str] | None = None) -> int:
    """Return how many of a sweep's ``jobs`` share this machine at a time."""
    launcher, sweeper = hydra.launcher, hydra.sweeper
    kind = str(launcher.get("_target_")).lower()
    if "joblib" in kind:
        asked = int(launcher.get("n_jobs", -1))
        most = asked if asked > 0 else max(cores() + 1 + asked, 1)
    elif "locallauncher" in kind:
        most = jobs or 1  # submitit starts them all
    else:
        return 1
    batch = sweeper.get("n_jobs") or sweeper.get("max_batch_size")
    limits = (most, jobs, batch, len(gpus) if gpus else None)
    return max(min(n for n in limits if n is not None), 1)
