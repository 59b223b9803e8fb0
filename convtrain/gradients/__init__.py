"""The gradient record: one row for each optimiser step, kept in the run's directory."""

from convtrain.gradients.record.store import load

__all__ = ["load"]
