"""What the loggers that take numbers alone have in common."""

from abc import abstractmethod
from collections.abc import Mapping

from pytorch_lightning.loggers import Logger
from torch import Tensor


class NumbersLogger(Logger):
    """A logger that takes the numbers of a log entry, and those in tensors of one value."""

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
