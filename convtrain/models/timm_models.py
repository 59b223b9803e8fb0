"""Models of timm by their names, the weights that timm publishes, and the images they expect."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn

from convtrain.errors import ConfigError, MissingDataError, did_you_mean, first_line
from convtrain.models.build import make_checked
from convtrain.program import install


def build_timm_model(name: str, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build one of timm's models with fresh weights.

    A ConfigError says that timm is not installed or the model is unknown, a NetworkError that it
    cannot take images of ``input_shape``.
    """
    create = _creator(name)

    def make() -> nn.Module:
        return create(pretrained=False, num_classes=num_classes, in_chans=input_shape[0])

    return make_checked(make, input_shape, num_classes, f"model.name={name}")


def expected_pixels(name: str, weights: str) -> dict[str, object]:
    """Return the values of ``data`` that timm's weights expect; ConfigError if it has none."""
    timm, where = _timm(), f"model.weights={weights}"
    _creator(name)
    if weights != "DEFAULT":
        raise ConfigError(f"{where}: the weights of timm are named in model.name; type DEFAULT")
    known = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if not known or not timm.is_model_pretrained(name):
        raise ConfigError(f"{where}: timm publishes no weights for {name}; type a file or a run")
    side = min(known.input_size[1:])
    return {
        "shape": list(known.input_size),
        "mean": list(known.mean),
        "std": list(known.std),
        "store_size": round(side / known.crop_pct),
        "eval_crop": known.crop_pct,
        "interpolation": "bilinear" if known.interpolation == "bilinear" else "bicubic",
    }


def tensors_from_timm(name: str, weights: str) -> dict[str, Tensor]:
    """Return the weights that timm publishes for a model, which timm downloads and converts.

    A MissingDataError says where the file is if it can neither be read nor be downloaded.
    """
    create = _creator(name)
    devices: list[int] = []  # no random numbers of a GPU are drawn
    try:
        with torch.random.fork_rng(devices), torch.device("cpu"):
            return create(pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        cfg = _timm().get_pretrained_cfg(name)
        repository = f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
        raise MissingDataError(
            f"model.weights={weights}: the weights of {name} cannot be downloaded "
            f"({first_line(error)}); download model.safetensors of {repository} elsewhere and type "
            f"model.weights=FILE, or copy the hub's cache here and set HF_HOME to it"
        ) from error


def _timm() -> ModuleType:
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(f"model=timm: needs the package timm; {install('timm')}") from error


def _creator(name: str) -> Callable[..., nn.Module]:
    """Return what makes a model; ConfigError if timm has none of this name."""
    timm = _timm()
    architecture, dot, _ = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*") if dot else timm.list_models()
    if not timm.is_model(name) or (dot and name not in known):
        near = did_you_mean(name, known or timm.list_models())
        raise ConfigError(
            f"model.name={name}: timm has no such model{near}; timm.list_models() lists them"
        )
    return partial(timm.create_model, name)
