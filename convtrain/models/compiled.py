"""Models that ``torch.compile`` compiled."""

import torch
from torch import Tensor, nn


def compile_in_place(model: nn.Module, mode: str) -> None:
    """Compile a model when it is first called, so that its parameters keep their names.

    ``dynamic=False`` compiles each shape by itself. So results do not depend on which shape came
    first, and a run resumed inside an epoch computes the same as an uninterrupted one.
    """
    model.compile(mode=mode, dynamic=False)


def is_compiled(model: nn.Module) -> bool:
    """Tell whether ``torch.compile`` or ``Module.compile`` compiled any of a model's modules."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def call_with_cuda_graphs(model: nn.Module, images: Tensor) -> Tensor:
    """Call a model compiled to CUDA graphs; copy its output, which the next call overwrites."""
    torch.compiler.cudagraph_mark_step_begin()
    output: Tensor = model(images)
    return output.clone()
