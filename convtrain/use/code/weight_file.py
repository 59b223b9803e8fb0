"""Write the weights of a run under the names that its code gives them."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from convtrain.assembly import build_model, make_model, wants_channels_last
from convtrain.config.groups.model import DeclaredModel
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.process.atomic import atomic_write
from convtrain.run.directory import Run
from convtrain.training.saved_weights import find_checkpoint, read_weights
from convtrain.training.starting_weights import read_starting_weights, refuse_changed
from convtrain.use.code.write import Code

SAFETENSORS, PICKLED = ".safetensors", (".pt", ".pth")


def write_weights(code: Code, run: Run, checkpoint: str | None, file: Path) -> None:
    """Write the tensors for ``load_state_dict``: as ``.pt``, or ``.safetensors``.

    Raises:
        MissingDataError: the run has no such checkpoint.
        ConfigError: the file has another ending.
    """
    if file.suffix not in (SAFETENSORS, *PICKLED):
        endings = ", ".join((*PICKLED, SAFETENSORS))
        raise ConfigError(f"--weights {file}: must end in one of {endings}")
    _write(code.rename(read_weights(find_checkpoint(run, checkpoint), run)), file)


def write_start(code: Code, config: Config, run: Run | None, file: Path) -> None:
    """Write what the model begins with: ``model.weights``, and a new head where it needs one.

    Raises:
        MissingDataError: the weights are not there.
        ConfigError: there are none, they are not those of the run, or the file has another ending.
    """
    if file.suffix not in PICKLED:  # the loop imports torch alone
        raise ConfigError(f"--start {file}: must end in one of {', '.join(PICKLED)}")
    torch.manual_seed(config.seed)
    model = make_model(config)
    if (weights := read_starting_weights(config, model)) is None:
        raise ConfigError(
            f"--start {file}: the training begins with weights that its seed draws, because "
            f"model.weights is null; leave --start out"
        )
    provenance = run.read_provenance() if run else {}
    refuse_changed(config, provenance)
    weights.load(model, config, provenance.get("classes"))
    _write(code.rename(model.state_dict()), file)


def _write(state: Mapping[str, Tensor], file: Path) -> None:
    contiguous = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()
    }
    with atomic_write(file) as writer:
        if file.suffix == SAFETENSORS:
            from safetensors.torch import save

            writer.write(save(contiguous, metadata={"format": "pt"}))
        else:
            buffer = io.BytesIO()
            torch.save(contiguous, buffer)
            writer.write(buffer.getvalue())


def computes_channels_last(config: Config) -> bool:
    """Tell whether a run uses this memory format, whose last bits are others."""
    if not isinstance(config.model, DeclaredModel) or config.network.has_own_layers:
        return False
    with torch.device("meta"):
        return wants_channels_last(config, build_model(config))
