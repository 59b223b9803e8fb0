"""Where a run or a sweep keeps its files: the resolvers that ``configs/train.yaml`` names."""

import datetime
import os
import re
import secrets
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from convtrain.config.metrics import mode_of

LOGS = "logs"
STAMP = "CONVTRAIN_STAMP"  # of a directory that several processes share
IDENTITY = "{identity}"  # stands for a sweep's, which is known once all its values are composed


def new_stamp() -> str:
    """Time and a random suffix, so that two jobs started in one second never share a folder."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"


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


def _direction(metric: str) -> str:
    """Return Optuna's word for what is better."""
    return f"{mode_of(metric)}imize"


def register_resolvers() -> None:
    """Make ``run_name``, ``run_dir``, ``sweep_dir`` and ``direction`` known to OmegaConf."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_dir", _sweep_dir, replace=True)
    OmegaConf.register_new_resolver("direction", _direction, replace=True)
