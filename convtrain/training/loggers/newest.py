"""The newest value of each metric, for the result of a run."""

from convtrain.training.loggers.base import NumbersLogger


class Newest(NumbersLogger):
    """Updates ``values`` with the newest value of each metric, whichever callback logs it."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__()
        self.values = values

    def log_numbers(self, numbers: dict[str, float], step: int | None) -> None:
        self.values.update(numbers)
