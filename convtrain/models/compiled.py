"""Models that ``torch.compile`` has compiled, and what is different with them."""

import torch
from torch import Tensor, nn


def compile_in_place(model: nn.Module, mode: str) -> None:
    """Compile a model when it is first called, so that its parameters keep their names.

    Each shape is compiled by itself: the result then does not depend on which shape came first,
    and a run that is resumed in the middle of an epoch computes the same as one that is not.

    Args:
        mode: of ``torch.compile``, such as ``default`` or ``reduce-overhead``.
    """
    model.compile(mode=mode, dynamic=False)


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a model or any of its modules is compiled, by whatever call."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def call_with_cuda_graphs(model: nn.Module, images: Tensor) -> Tensor:
    """Call a model that is compiled to CUDA graphs, whose next call overwrites its output.

    Args:
        images: of shape (N, channels, height, width).

    Returns:
        a copy of the logits, (N, classes).
    """
    torch.compiler.cudagraph_mark_step_begin()
    output: Tensor = model(images)
    return output.clone()
