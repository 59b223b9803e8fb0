"""Two processes, one model: a declared network under DDP and FSDP, in both styles."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import convtrain

SHAPE = (3, 8, 8)
STEPS, PROCESSES, BATCH = 10, 2, 8
STYLES = ("nn", "functional")
# GroupNorm treats each image by itself, so the mean over two halves is the mean over the whole.
NORMS: dict[str, Any] = {
    "GroupNorm": {"GroupNorm": {"num_groups": 2, "num_channels": 6}},
    "BatchNorm2d": "BatchNorm2d",
}
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-14}
State = dict[str, Tensor]


def build(style: Any, norm: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        {"Conv2d": {"out_channels": 6, "kernel_size": 3}},
        NORMS[norm],
        "ReLU",
        {"Residual": {"body": [{"Conv2d": {"out_channels": 6, "kernel_size": 3, "padding": 1}}]}},
        {"MaxPool2d": {"kernel_size": 2}},
        "Flatten",
        {"Linear": {"out_features": 5}},
    ]
    return convtrain.build_model(layers, SHAPE, style=style).to(dtype)


def train(model: nn.Module, share: slice, dtype: torch.dtype) -> State:
    """Train on a share of each step's batch; return whole tensors."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    random = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images = torch.randn(BATCH, *SHAPE, generator=random, dtype=dtype)
        targets = torch.randint(0, 5, (BATCH,), generator=random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[share]), targets[share]).backward()
        optimizer.step()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name.removeprefix("module."): whole(tensor).detach() for name, tensor in tensors.items()
    }


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(model: nn.Module) -> nn.Module:
    fully_shard(model, mesh=init_device_mesh("cpu", (PROCESSES,)))
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DDP": DistributedDataParallel,
    "FSDP": shard,
}


def process(rank: int, folder: str, wrap: str) -> None:
    """Train every combination as one of the processes; the first one keeps the results."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    share = slice(rank * BATCH // PROCESSES, (rank + 1) * BATCH // PROCESSES)
    results = {
        (style, norm, dtype): train(WRAPS[wrap](build(style, norm, dtype)), share, dtype)
        for style in STYLES
        for norm in NORMS
        for dtype in TOLERANCE
    }
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    distributed.barrier()
    # Sharded models lie in reference cycles and keep gloo's threads alive, which abort a process
    # that ends in the usual way (pytorch/pytorch#190489).
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPS)
def test_two_processes_train_a_declared_network_as_one_would(wrap: str, tmp_path: Path) -> None:
    multiprocessing.spawn(process, (str(tmp_path), wrap), PROCESSES)
    results = torch.load(tmp_path / "results.pt")
    for norm in NORMS:
        for dtype, tolerance in TOLERANCE.items():
            tree, explicit = (results[style, norm, dtype] for style in STYLES)
            assert list(tree) == list(explicit)
            assert all(torch.equal(tree[name], explicit[name]) for name in tree)
            if norm == "GroupNorm":
                before = dict(build("nn", norm, dtype).named_parameters())
                alone = train(build("nn", norm, dtype), slice(None), dtype)
                torch.testing.assert_close(tree, alone, atol=tolerance, rtol=0)
                assert all((tree[name] - before[name]).abs().max() > 1e-3 for name in tree)
