"""Write a run's weights as safetensors, without the rest of the checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from convtrain.errors import ConfigError
from convtrain.process.atomic import atomic_write
from convtrain.run.directory import Run
from convtrain.use.checkpoints import find_checkpoint, read_weights


def export_weights(
    run_dir: Path | str, *, checkpoint: str = "last", out: Path | str | None = None
) -> tuple[Path, Path, int]:
    """Write a network's weights and buffers; return the file, its checkpoint, and the tensor count.

    Load them by ``model.load_state_dict(safetensors.torch.load_file(out))``. Tensors that share
    memory are written once per name.

    Args:
        checkpoint: ``last``, ``best``, or the name of a file in ``RUN/checkpoints``.
        out: the file to write; ``RUN/weights.safetensors`` if None.

    Raises:
        MissingDataError: the run or the checkpoint does not exist.
        ConfigError: a value is not a dense tensor.
    """
    run = Run(run_dir)
    source = find_checkpoint(run, checkpoint)
    tensors = {name: _plain(name, value) for name, value in read_weights(source, run).items()}
    target = Path(out) if out is not None else run.path / "weights.safetensors"
    with atomic_write(target) as writer:
        writer.write(save(tensors, metadata={"format": "pt"}))
    return target, source, len(tensors)


def _plain(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise ConfigError(f"{name}: {type(value).__name__}; safetensors holds dense tensors only")
    return value.clone(memory_format=torch.contiguous_format)
