"""The gradient record: one row for each optimiser step, stored in the run's directory."""

from convtrain.gradients.record.store import load

__all__ = ["load"]
