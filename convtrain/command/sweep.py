"""A sweep before it begins: what it is, where it lies, how many jobs it has, what it cannot do."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from convtrain.command.resolvers import IDENTITY
from convtrain.command.sweeper import number_of_jobs, sweeper_mistakes
from convtrain.config.identity import NEUTRAL, hashed, leaves, role_of
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.process.hardware import cores, gpus_of
from convtrain.text import as_hydra_value

RECORD = "sweep.json"  # in the sweep's directory
CALLBACK = "hydra.callbacks.sweep_table"
LOCAL_GPUS = "local_gpus"
ONE_DEVICE = ("joblib", LOCAL_GPUS)  # launchers whose jobs are workers, which start no others
EXTENDABLE = ("n_trials", "storage", "study_name", "max_failure_rate")


def sweep_arguments(
    configs: Sequence[Config],
    hydra: DictConfig,
    overrides: list[Override],
    shared: Mapping[str, Any],
) -> list[str]:
    """Return what Hydra must know of a sweep beyond what was typed.

    The directory follows from what the sweep is, so that the same command finds it again.

    Args:
        configs: one for each value that is swept.
        hydra: Hydra's own node, of the first of them.
        overrides: what was typed, parsed.
        shared: the configuration without what is swept, as it is before interpolation.

    Raises:
        ConfigError: its directory holds another sweep, or its launcher cannot start its jobs.
    """
    wrong = list(_mistakes(configs, hydra, overrides))
    if wrong:
        raise ConfigError(*wrong)
    identity = _identity(shared, hydra, overrides)
    folder = str(OmegaConf.select(hydra, "sweep.dir")).replace(IDENTITY, identity)
    _refuse_another(Path(folder), identity)
    if "%" in folder and "submitit_folder" in hydra.launcher:
        raise ConfigError(f"hydra.sweep.dir={folder}: submitit and SLURM replace %j and the like")
    jobs, gpus = number_of_jobs(hydra, overrides), _gpus(configs, hydra)
    more = [
        f"hydra.sweep.dir={as_hydra_value(folder)}",
        f"++{CALLBACK}.identity='{identity}'",
        f"++{CALLBACK}.jobs={'null' if jobs is None else jobs}",
        f"++{CALLBACK}.swept=[{','.join(map(as_hydra_value, _swept(overrides)))}]",
    ]
    if gpus is not None:
        more.append(f"++{CALLBACK}.gpus={json.dumps(gpus)}")
    if _choice(hydra, "launcher") == LOCAL_GPUS:
        more.append(f"hydra.launcher.n_jobs={len(gpus or ())}")
    return more


def jobs_at_once(hydra: Any, jobs: int | None, gpus: Sequence[str] | None = None) -> int:
    """Return how many jobs share this machine, as the launcher starts them.

    Args:
        hydra: Hydra's own node.
        jobs: of the whole sweep, where that is known.
        gpus: that they take turns at, if they do.
    """
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


def _identity(shared: Mapping[str, Any], hydra: DictConfig, overrides: list[Override]) -> str:
    """Return what tells one sweep from another: which keys are swept, and all that is not.

    Their values are not part of it, so that a sweep can be extended. An interval is, because
    another one is another search.
    """
    intervals = [str(o.input_line) for o in overrides if o.is_interval_sweep()]
    sweeper = {key: value for key, value in _plain(hydra.sweeper).items() if key not in EXTENDABLE}
    trained = {key: value for key, value in leaves(shared) if role_of(key) != NEUTRAL}
    return hashed([_swept(overrides), sorted(intervals), sweeper, trained])


def _swept(overrides: list[Override]) -> list[str]:
    return sorted({o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()})


def _plain(node: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _refuse_another(folder: Path, identity: str) -> None:
    """A directory that somebody named may hold another sweep, whose results would be lost."""
    try:
        there = json.loads((folder / RECORD).read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if there != identity:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds another sweep, or its configuration has changed "
            f"since; give another directory, or leave hydra.sweep.dir out"
        )


def _mistakes(
    configs: Sequence[Config], hydra: DictConfig, overrides: list[Override]
) -> Iterator[str]:
    if (resumed := configs[0].resume) is not None:
        yield (
            f"resume={resumed}: a sweep trains in directories of its own; leave -m out, or leave "
            f"resume out and type the sweep again, which resumes its jobs"
        )
    launcher, sweeper = _choice(hydra, "launcher"), _choice(hydra, "sweeper")
    for group, choice in (("launcher", launcher), ("sweeper", sweeper)):
        module = str(hydra[group].get("_target_")).rpartition(".")[0]
        if not _is_installed(module):
            yield f"hydra/{group}={choice}: is not installed; pip install -e '.[sweep]'"
    if _gpus(configs, hydra) == []:
        yield (
            f"sweep.gpus={configs[0].sweep.gpus or 'auto'}: no GPU is found here by nvidia-smi; "
            f"list them: sweep.gpus=[0,1], or type hydra/launcher=joblib"
        )
    yield from _wrong_devices(configs, hydra)
    yield from sweeper_mistakes(configs, hydra, overrides)


def _wrong_devices(configs: Sequence[Config], hydra: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the machines and devices of jobs."""
    launcher = _choice(hydra, "launcher")
    several = next((c.trainer for c in configs if c.trainer.devices != 1), None)
    if several is not None and launcher in ONE_DEVICE:
        yield (
            f"trainer.devices={several.devices}: hydra/launcher={launcher} gives each job one "
            f"device; leave it out, or type hydra/launcher=submitit_local"
        )
    elif several is not None and configs[0].sweep.gpus is not None:
        yield (
            f"trainer.devices={several.devices}: sweep.gpus gives each job one GPU; leave one of "
            f"the two out"
        )
    if nodes := next((n for c in configs if (n := c.trainer.num_nodes) > 1), None):
        yield f"trainer.num_nodes={nodes}: a job of a sweep has one machine; leave it out"
    for key in ("nodes", "tasks_per_node"):
        if (asked := hydra.launcher.get(key)) not in (None, 1):
            yield (
                f"hydra.launcher.{key}={asked}: a job of a sweep has one machine and one task, "
                f"which starts its own processes; set trainer.devices, or leave -m out, with srun"
            )


def _gpus(configs: Sequence[Config], hydra: DictConfig) -> list[str] | None:
    """Return the GPUs that the jobs take turns at, or None where they do not."""
    chosen = configs[0].sweep.gpus
    if chosen is None and _choice(hydra, "launcher") != LOCAL_GPUS:
        return None
    return gpus_of(chosen)


def _choice(hydra: DictConfig, group: str) -> str:
    return str(hydra.runtime.choices.get(f"hydra/{group}"))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
