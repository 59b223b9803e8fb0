"""The format safetensors: weights and buffers by their names, for a model that is built anew."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from convtrain.assembly import build_model
from convtrain.errors import ConfigError
from convtrain.use.formats.portable import PixelModel, Portable, Predict

FORMAT = {"format": "pt"}  # what other readers of safetensors look for


def write(portable: Portable, path: Path) -> None:
    state = portable.trained.model.state_dict()
    tensors = {name: plain(name, value) for name, value in state.items()}
    path.write_bytes(save(tensors, metadata={**FORMAT, **portable.texts}))


def read(portable: Portable, path: Path) -> Predict:
    random_state = torch.get_rng_state()
    model = build_model(portable.trained.config).float()
    torch.set_rng_state(random_state)
    model.load_state_dict(load_file(path), strict=True)
    return PixelModel(model, portable.trained.preprocessing.normalise).eval()


def plain(name: str, value: object) -> Tensor:
    """Return a tensor that shares no memory; raise ConfigError for what safetensors cannot hold."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise ConfigError(f"{name}: {type(value).__name__}; safetensors holds dense tensors only")
    return value.detach().clone(memory_format=torch.contiguous_format)
