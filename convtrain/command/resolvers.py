"""Where a run or a sweep keeps its files: the resolvers that ``configs/train.yaml`` names."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from convtrain.config.identity import NEUTRAL, hashed, role_of
from convtrain.config.metrics import mode_of
from convtrain.process.stamp import STAMP, new_stamp
from convtrain.run.directory import LOGS

LONGEST_JOB = 48  # characters of the readable part of a job's directory
IDENTITY = "{identity}"  # stands for a sweep's, which is known once all its values are composed


def _run_name(*candidates: Any) -> str:
    """Return the first name given: the experiment's, else the model's, else the network's.

    It becomes a folder's name, so what could lead elsewhere is left out of it.

    Args:
        candidates: names, or the section of a model, which names its class or torchvision's model.
    """
    names = (_model_name(each) if isinstance(each, Mapping) else each for each in candidates)
    name = next(str(name) for name in names if name is not None)
    safe = re.sub(r"[^\w+.-]", "_", name).lstrip(".")
    return safe.encode()[:100].decode(errors="ignore") or "run"


def _model_name(model: Mapping[str, Any]) -> str | None:
    target = model.get("_target_")
    return model.get("name") if target is None else str(target).rpartition(".")[2]


def _run_dir(resume: str | None, name: str) -> str:
    return resume if resume else f"{LOGS}/runs/{name}/{os.environ.get(STAMP) or new_stamp()}"


def _sweep_dir(name: str) -> str:
    return f"{LOGS}/sweeps/{name}/{IDENTITY}"


def _job_dir(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Return the name of a job's directory in its sweep's, which follows from its values alone.

    So an extended sweep, or one that is typed in another order, finds its jobs.

    Args:
        overrides: of the job.
        swept: the keys that have several values in this sweep; where none are known, as with a
            sweeper that is not, all that makes the job another training counts.
    """
    pairs = (text.lstrip("+").partition("=") for text in overrides)
    values = sorted((key, value) for key, separator, value in pairs if separator)
    chosen = [(k, v) for k, v in values if (k in swept if swept else role_of(k) != NEUTRAL)]
    parts = (f"{re.split('[./@]', key)[-1]}-{value}" for key, value in chosen)
    name = re.sub(r"[^\w.+-]+", "-", "_".join(parts), flags=re.ASCII)[:LONGEST_JOB].strip("-_.")
    return f"{name or 'job'}_{hashed(chosen)[:6]}"


def _direction(metric: str) -> str:
    """Return Optuna's word for what is better."""
    return f"{mode_of(metric)}imize"


def register_resolvers() -> None:
    """Make these names known to OmegaConf."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_dir", _sweep_dir, replace=True)
    OmegaConf.register_new_resolver("job_dir", _job_dir, replace=True)
    OmegaConf.register_new_resolver("direction", _direction, replace=True)
