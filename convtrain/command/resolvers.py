"""The resolvers in ``configs/train.yaml``, which name the directories of runs and sweeps."""

import re
from collections.abc import Mapping, Sequence

from omegaconf import OmegaConf

from convtrain.config.identity import NEUTRAL, hashed, role_of
from convtrain.config.metrics import mode_of
from convtrain.config.trust import short_name
from convtrain.process.stamp import new_stamp
from convtrain.run.directory import LOGS

MAX_JOB_CHARACTERS = 48  # in the readable part of a job's directory
IDENTITY = "{identity}"  # replaced once all values of the sweep are composed


def register_resolvers(stamp: str | None = None) -> None:
    """Register the resolvers. Ranks share ``stamp``; by default, each new run has its own."""

    def run_dir(resume: str | None, name: str) -> str:
        return resume if resume else f"{LOGS}/runs/{name}/{stamp or new_stamp()}"

    def sweep_dir(name: str) -> str:
        return f"{LOGS}/sweeps/{name}/{IDENTITY}"

    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_dir", sweep_dir, replace=True)
    OmegaConf.register_new_resolver("job_dir", _job_dir, replace=True)
    OmegaConf.register_new_resolver("direction", _direction, replace=True)


def run_name(*candidates: object) -> str:
    """Return the first name that is given, as the name of a folder.

    A candidate may be the section of a model, which counts as its class or torchvision's model.
    """
    names = (_model_name(each) if isinstance(each, Mapping) else each for each in candidates)
    name = next(str(name) for name in names if name is not None)
    safe = re.sub(r"[^\w+.-]", "_", name).lstrip(".")
    return safe.encode()[:100].decode(errors="ignore") or "run"


def _model_name(model: Mapping[str, object]) -> object:
    target = model.get("_target_")
    return model.get("name") if target is None else short_name(str(target), model)


def _direction(metric: str, mode: str = "auto") -> str:
    return f"{mode_of(metric, mode)}imize"


def _job_dir(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Name a job's directory after its values alone, so that an extended sweep finds its jobs."""
    pairs = (text.lstrip("+").partition("=") for text in overrides)
    values = sorted((key, value) for key, separator, value in pairs if separator)
    # A foreign sweeper does not tell the swept keys: then all keys but neutral ones count.
    chosen = [(k, v) for k, v in values if (k in swept if swept else role_of(k) != NEUTRAL)]
    parts = (f"{re.split('[./@]', key)[-1]}-{value}" for key, value in chosen)
    name = re.sub(r"[^\w.+-]+", "-", "_".join(parts), flags=re.ASCII)
    return f"{name[:MAX_JOB_CHARACTERS].strip('-_.') or 'job'}_{hashed(chosen)[:6]}"
