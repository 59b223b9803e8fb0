"""Gather tensors that ``fully_shard`` has sharded over processes, and shard whole ones."""

from collections.abc import Mapping

from torch import Tensor, nn


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole tensor; every process that holds a shard must call."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def divided_like(parameter: Tensor, whole: Tensor) -> Tensor:
    """Return a copy of ``whole``, equal in all processes, placed and sharded like ``parameter``."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return whole.to(parameter.device, copy=True)
    from torch.distributed.tensor import DTensor, distribute_tensor  # takes long to import

    assert isinstance(parameter, DTensor)
    return distribute_tensor(
        whole.to(parameter.device, copy=True), mesh, parameter.placements, src_data_rank=None
    )


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole weights and buffers into a module, which may be sharded."""
    own = module.state_dict()
    module.load_state_dict(
        {name: divided_like(own[name], t) if name in own else t for name, t in state.items()}
    )
