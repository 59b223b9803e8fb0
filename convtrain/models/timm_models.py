"""Models of timm by their names, and the weights that timm publishes."""

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import nn

from convtrain.errors import ConfigError, did_you_mean
from convtrain.models.build import PROBE_BATCH, check_output
from convtrain.program import install


def build_timm_model(name: str, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build one of timm's models with fresh weights.

    A ConfigError says that timm is not installed or the model is unknown, a NetworkError that it
    cannot take images of ``input_shape``.
    """
    create = _creator(name)

    def make() -> nn.Module:
        return create(pretrained=False, num_classes=num_classes, in_chans=input_shape[0])

    def run() -> object:
        with torch.device("meta"):  # computes shapes only
            return make()(torch.empty(PROBE_BATCH, *input_shape))

    check_output(run, input_shape, num_classes, f"model.name={name}")
    return make()


def _timm() -> ModuleType:
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(f"model=timm: needs the package timm; {install('timm')}") from error


def _creator(name: str) -> Callable[..., nn.Module]:
    """Return what makes a model; ConfigError if timm has none of this name."""
    timm = _timm()

    def create(**arguments: object) -> nn.Module:
        try:
            made: nn.Module = timm.create_model(name, **arguments)
        except RuntimeError as error:
            if "pretrained tag" not in str(error):
                raise
            known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
            raise ConfigError(_unknown(name, known)) from error
        return made

    if not timm.is_model(name):
        raise ConfigError(_unknown(name, timm.list_models()))
    return create


def _unknown(name: str, known: Sequence[str]) -> str:
    near = did_you_mean(name, known)
    return f"model.name={name}: timm has no such model{near}; timm.list_models() lists them"
