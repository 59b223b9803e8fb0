"""Models that ``torch.compile`` has compiled, and what is different with them."""

from typing import Literal

import torch
from torch import Tensor, nn

Mode = Literal["default", "reduce-overhead", "max-autotune"]


def compile_in_place(model: nn.Module, mode: Mode) -> None:
    """Compile a model when it is first called, so that its parameters keep their names.

    Each shape is compiled by itself: what is computed then does not depend on which came first, and
    a run that is resumed in the middle of an epoch computes what the others do.
    """
    model.compile(mode=mode, dynamic=False)


def is_compiled(model: nn.Module) -> bool:
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def uses_cuda_graphs(mode: Mode | None) -> bool:
    """Tell whether a model of this mode is replayed on a GPU, rather than called."""
    return mode in ("reduce-overhead", "max-autotune")


def replayed(model: nn.Module, images: Tensor) -> Tensor:
    """Call a model whose output lies in memory that its next call overwrites; return a copy."""
    torch.compiler.cudagraph_mark_step_begin()
    output: Tensor = model(images)
    return output.clone()
