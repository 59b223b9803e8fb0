"""convtrain: a declarative training pipeline for image models.

The public names are imported at first use, so that ``import convtrain`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convtrain.launch.start import train as train
    from convtrain.models.build import build_model as build_model
    from convtrain.models.functional import functionalize as functionalize
    from convtrain.use.evaluate import evaluate as evaluate
    from convtrain.use.load import load as load
    from convtrain.use.reproduce import reproduce as reproduce

__version__ = "0.1.0"

_HOME = {
    "build_model": "convtrain.models.build",
    "evaluate": "convtrain.use.evaluate",
    "functionalize": "convtrain.models.functional",
    "load": "convtrain.use.load",
    "reproduce": "convtrain.use.reproduce",
    "train": "convtrain.launch.start",
}

__all__ = ["__version__", "build_model", "evaluate", "functionalize", "load", "reproduce", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'convtrain' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
