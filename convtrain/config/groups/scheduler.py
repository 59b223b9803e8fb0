"""The schedules of the learning rate."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.metrics import Metric, Mode, known_mode, mode_of
from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, Fraction, Whole
from convtrain.config.targets import Target
from convtrain.config.torch_classes import PLATEAU, SCHEDULERS, is_plateau, refusal
from convtrain.config.trust import SCHEDULER

WarmUp = Annotated[float, Field(ge=0, le=1e9, description="epochs of linear warm-up")]


class Constant(Choice):
    builds = "convtrain.training.schedules:constant"
    name: Literal["none"] = Field(description="schedule of the learning rate")
    warmup_epochs: WarmUp


class Step(Choice):
    builds = "convtrain.training.schedules:stepwise"
    name: Literal["step"] = Field(description="schedule of the learning rate")
    step_epochs: float = Field(gt=0, le=1e9, description="epochs between two drops")
    gamma: float = Field(gt=0, le=1, description="factor of the learning rate at each drop")
    warmup_epochs: WarmUp


class Cosine(Choice):
    builds = "convtrain.training.schedules:cosine"
    name: Literal["cosine"] = Field(description="schedule of the learning rate")
    final_fraction: Fraction = Field(description="last rate as a part of optimizer.lr, 0-1")
    warmup_epochs: WarmUp


class CosineRestarts(Cosine):
    builds = "convtrain.training.schedules:cosine_restarts"
    name: Literal["cosine_restarts"] = Field(description="schedule of the learning rate")  # type: ignore[assignment]
    t_0: float = Field(gt=0, le=1e9, description="epochs of the first cycle")
    t_mult: int = Field(ge=1, le=1000, description="factor: length of a cycle / of the one before")


class Linear(Cosine):
    builds = "convtrain.training.schedules:linear"
    name: Literal["linear"] = Field(description="schedule of the learning rate")  # type: ignore[assignment]


class Polynomial(Cosine):
    builds = "convtrain.training.schedules:polynomial"
    name: Literal["polynomial"] = Field(description="schedule of the learning rate")  # type: ignore[assignment]
    power: float = Field(gt=0, le=1000, description="exponent of the fall; 1 is linear")


class Exponential(Choice):
    builds = "convtrain.training.schedules:exponential"
    name: Literal["exponential"] = Field(description="schedule of the learning rate")
    gamma: float = Field(gt=0, le=1, description="factor of the learning rate in each epoch")
    warmup_epochs: WarmUp


class OneCycle(Choice):
    builds = "convtrain.training.schedules:onecycle"
    name: Literal["onecycle"] = Field(description="schedule of the learning rate")
    pct_start: Fraction = Field(description="part of the training in which the rate rises, 0-1")
    div_factor: float = Field(ge=1, le=1e12, description="factor: optimizer.lr / first rate")
    final_div_factor: float = Field(ge=1, le=1e12, description="factor: first rate / last rate")
    anneal_strategy: Literal["cos", "linear"] = Field(description="shape of the rise and the fall")


class Plateau(Choice):
    builds = "convtrain.training.schedules:plateau"
    name: Literal["plateau"] = Field(description="schedule of the learning rate")
    monitor: Metric = Field(description="monitored metric")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    factor: float = Field(gt=0, lt=1, description="factor of the learning rate at each drop")
    patience: Whole = Field(description="epochs without improvement before a drop")

    @property
    def arguments(self) -> dict[str, object]:
        return {**super().arguments, "mode": mode_of(self.monitor, self.mode)}


class CustomScheduler(Target):
    """A schedule of torch's or of one's own, which takes the optimiser first; see ``schedules``."""

    kind = SCHEDULER
    positional = 1
    given = ("total_steps",)
    name: Literal["custom"] = Field(description="schedule of the learning rate")
    interval: Literal["step", "epoch"] = Field(description="how often the schedule is stepped")
    monitor: Metric | None = Field(
        default=None, description="monitored metric of a ReduceLROnPlateau; null is val/loss"
    )

    def build(self, *positional: object, **runtime: object) -> object:
        """Return the schedule as the others do; see :func:`convtrain.training.schedules.custom`."""
        custom: Callable[..., object] = import_module("convtrain.training.schedules").custom
        return custom(self, super().build, *positional, **runtime)

    @property
    def monitors(self) -> bool:
        """Whether it waits for a metric, as far as its name tells."""
        return self.class_name == PLATEAU or self.monitor is not None

    @property
    def monitored(self) -> Metric:
        return self.monitor or "val/loss"

    def mistakes(self) -> Iterator[Mistake]:
        if (reason := refusal(self.builder, SCHEDULERS)) is not None:
            yield Mistake(f"{self._key}._target_", reason)
            return
        yield from super().mistakes()
        if not is_plateau(self.builder):
            if self.monitors:
                text = f"has no effect, because {self.class_name} waits for no metric; omit it"
                yield Mistake(f"{self._key}.monitor", text)
            return
        if self.interval == "step":
            text = f"{self.class_name} waits for a validation; set {self._key}.interval=epoch"
            yield Mistake(f"{self._key}.interval", text)
        right, mode = known_mode(self.monitored), self.arguments.get("mode")
        if right is None and mode is None:
            text = f"of {self.monitored} is not known; set max if more is better, or min"
            yield Mistake(f"{self._key}.mode", text)
        elif right is not None and mode not in (None, right):
            text = f"does not fit {self._key}.monitor={self.monitored}; omit it, or set {right}"
            yield Mistake(f"{self._key}.mode", text)


Scheduler = Annotated[
    Constant
    | Step
    | Cosine
    | CosineRestarts
    | Linear
    | Polynomial
    | Exponential
    | OneCycle
    | Plateau
    | CustomScheduler,
    Field(discriminator="name"),
]
