"""Models that ``torch.compile`` compiled."""

from torch import nn


def is_compiled(model: nn.Module) -> bool:
    """Tell whether ``torch.compile`` or ``Module.compile`` compiled any of a model's modules."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
