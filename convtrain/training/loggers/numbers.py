"""Loggers that take numbers only: their base, and the newest value of each metric."""

from abc import abstractmethod
from collections.abc import Mapping

from pytorch_lightning.loggers import Logger
from torch import Tensor


class NumbersLogger(Logger):
    """Logs the numbers of a log entry, tensors of one value included; ignores the rest."""

    name = version = ""

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Log nothing: the hyperparameters are in the run's ``config.yaml``."""

    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        single = {
            name: value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
            for name, value in metrics.items()
        }
        self.log_numbers({n: v for n, v in single.items() if isinstance(v, int | float)}, step)

    @abstractmethod
    def log_numbers(self, numbers: dict[str, float], step: int | None) -> None:
        """Log the numbers of one entry."""


class Newest(NumbersLogger):
    """Updates ``values`` with the newest value of each metric, whichever callback logs it."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__()
        self.values = values

    def log_numbers(self, numbers: dict[str, float], step: int | None) -> None:
        self.values.update(numbers)
