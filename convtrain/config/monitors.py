"""Rules about the metrics that are monitored: they must be measured, and their mode known."""

from collections.abc import Iterator
from typing import NamedTuple

from convtrain.config.groups.callbacks import Callbacks
from convtrain.config.groups.metrics import Metrics
from convtrain.config.groups.scheduler import CustomScheduler, Plateau, Scheduler
from convtrain.config.groups.sweep import Sweep
from convtrain.config.metrics import ALWAYS, known_mode
from convtrain.config.mistakes import Mistake
from convtrain.config.section import Section


class Monitor(NamedTuple):
    """A metric that a key names."""

    key: str
    metric: str
    mode_key: str
    mode: str
    description: str


def monitors(callbacks: Callbacks, scheduler: Scheduler, sweep: Sweep) -> Iterator[Monitor]:
    """Yield every metric that is monitored."""
    watching: dict[str, Section] = {
        "callbacks.checkpoint": callbacks.checkpoint,
        "callbacks.early_stopping": callbacks.early_stopping,
        **({"scheduler": scheduler} if isinstance(scheduler, Plateau) else {}),
        "sweep": sweep,
    }
    for name, section in watching.items():
        field = "metric" if name == "sweep" else "monitor"
        text = type(section).model_fields[field].description or ""
        metric, mode = getattr(section, field), getattr(section, "mode")  # noqa: B009
        yield Monitor(f"{name}.{field}", metric, f"{name}.mode", mode, text)
    if isinstance(scheduler, CustomScheduler) and scheduler.monitors:
        text = CustomScheduler.model_fields["monitor"].description or ""
        yield Monitor(
            "scheduler.monitor", scheduler.monitored, "", "an argument of the class", text
        )


def monitored(
    callbacks: Callbacks, scheduler: Scheduler, sweep: Sweep, metrics: Metrics
) -> Iterator[Mistake]:
    """A metric must be measured, and each has one right mode; Lightning has the key of the mode.

    What a user's callback logs cannot be known before it does.
    """
    known = [*ALWAYS, *(f"val/{name}" for name in metrics)]
    for each in monitors(callbacks, scheduler, sweep):
        right, what = known_mode(each.metric), f"of {each.key}={each.metric}"
        if each.metric not in known and not callbacks.custom:
            names = [f"'{name}'" for name in known]
            text = f"must be {', '.join(names[:-1])} or {names[-1]} ({each.description})"
            hint = "; metrics=[...] chooses others" * each.metric.startswith("val/")
            yield Mistake(each.key, text + hint)
        elif each.mode_key and right is None and each.mode == "auto":
            text = f"{what} is not known; set {each.mode_key}=max if more is better, or min"
            yield Mistake(each.mode_key, text)
        elif each.mode_key and right is not None and each.mode not in ("auto", right):
            yield Mistake(
                each.mode_key,
                f"{what} {'more' if right == 'max' else 'less'} is better; omit it, or set "
                f"{each.mode_key}={right}",
            )


def measured_names(metrics: Metrics) -> list[str]:
    """Return the names of the chosen metrics in logs and results."""
    return [f"{split}/{name}" for split in ("val", "test") for name in metrics]


def taken_names(metrics: Metrics) -> Iterator[Mistake]:
    for name in metrics:
        if name in ("loss", "acc"):
            yield Mistake(f"metrics.{name}", "is measured already; give it another name")
