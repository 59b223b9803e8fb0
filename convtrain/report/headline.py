"""What was trained, the state of the run, and its result in a few numbers and sentences."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from convtrain.config.dotted import value_at
from convtrain.config.metrics import mode_of
from convtrain.report.tested import Tested
from convtrain.run.curves import Curve
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.text import format_duration, format_metric

Z95 = 1.96  # standard deviations of a 95 % interval
OVERFITTED = 0.05  # gap of training and validation accuracy

Curves = Mapping[str, Curve]


class Standing(NamedTuple):
    """The state of a run: one word, whether it is good, bad or soft, and a sentence."""

    word: str
    kind: str
    text: str


def standing(run: Run, result: Result | None) -> Standing:
    if result is not None:
        early = result.get("stopped_early")
        return Standing(
            "finished", "good", f"The training stopped early: {early}." if early else ""
        )
    if run.is_locked:
        return Standing(
            "running", "soft", "The run is still training; this page shows its state so far."
        )
    if (error := run.read_error()) is not None:
        return Standing("failed", "bad", error)
    what = "can be resumed" if run.is_resumable else "has not saved a checkpoint yet"
    return Standing(
        "unfinished",
        "soft",
        f"The run was interrupted and {what}; this page shows its state so far.",
    )


def model_of(config: Mapping[str, object]) -> str:
    """Return the name of the network, of torchvision's model or of the user's class."""
    target, name = value_at(config, "model._target_", None), value_at(config, "model.name", None)
    return str(target or name or value_at(config, "network.name", "network")).rpartition(".")[2]


def described(
    config: Mapping[str, object],
    result: Result | None,
    provenance: Mapping[str, object],
    curves: Curves,
) -> str:
    """Return a sentence on what was trained, and how."""
    device, frozen = provenance.get("device"), provenance.get("frozen")

    def known(key: str, form: str) -> str | None:
        value = value_at(config, key, None)
        return None if value is None or isinstance(value, dict | list) else form.format(value)

    style = {"functional": "functions of torch.nn.functional", "nn": "modules of torch.nn"}
    written = style.get(str(value_at(config, "model.style", "")), "torchvision's or your own class")
    size = f"{result['parameters']:,} parameters, " if result and "parameters" in result else ""
    for how_long, count in frozen.items() if isinstance(frozen, dict) else ():
        size += f"{count:,} of them {how_long}, "
    if result is not None:
        length = f"{_counted(result['epochs'], 'epoch')} ({_counted(result['steps'], 'step')})"
    else:
        steps = max((curve.steps[-1] for curve in curves.values() if curve.steps), default=0)
        length = f"{_counted(steps, 'step')} so far"
    parts = [
        known("data.batch_size", "batches of {} images"),
        _with(known("optimizer.name", "optimizer {}"), known("optimizer.lr", "learning rate {}")),
        known("scheduler.name", "scheduler {}"),
        _with(known("loss.name", "loss {}"), known("loss.class_weights", "{} class weights")),
        "balanced sampling" if value_at(config, "data.sampling", None) == "balanced" else None,
        known("data.fold", "fold {}"),
        known("seed", "seed {}"),
        f"device {device}" if device else None,
    ]
    return (
        f"The network {model_of(config)} ({size}written as {written}) was trained on "
        f"{value_at(config, 'data.name', 'images')} for {length}: "
        f"{', '.join(part for part in parts if part)}."
    )


def _with(first: str | None, second: str | None) -> str | None:
    return f"{first} with {second}" if first and second else first or second


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def tiles(
    result: Result | None, curves: Curves, tested: Tested | None
) -> Iterator[tuple[str, str]]:
    """Yield the numbers to see first, each with what it is."""
    if result is not None and "test/acc" in result:
        of = f"on {tested.images:,} {tested.split} images" if tested else "of the test"
        yield format_metric("acc", result["test/acc"]), f"accuracy {of}"
    for name, what in (("val/acc", "validation"), ("train/acc_epoch", "training")):
        if curve := curves.get(name):
            yield format_metric("acc", curve.values[-1]), f"{what} accuracy, last epoch"
    if result is not None and "test/loss" in result:
        yield format_metric("loss", result["test/loss"]), "test loss"
    elif curve := curves.get("val/loss") or curves.get("train/loss"):
        yield format_metric("loss", curve.values[-1]), "loss, the newest"
    if result is not None:
        yield format_duration(result["wall_time_seconds"]), "wall time"


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy that was measured on this many images."""
    share = Z95**2 / images
    centre = (accuracy + share / 2) / (1 + share)
    half = Z95 / (1 + share) * math.sqrt(accuracy * (1 - accuracy) / images + share / 4 / images)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def remarks(
    config: Mapping[str, object],
    result: Result | None,
    curves: Curves,
    tested: Tested | None,
) -> Iterator[str]:
    """Yield a sentence for each thing that the result says when it is read with care."""
    if tested is not None and tested.confusion is None:
        yield (
            f"An image has any number of labels. The accuracy is the part of all labels that are "
            f"predicted correctly, as present or as absent; {tested.images - tested.wrong:,} of "
            f"{tested.images:,} images have every label right."
        )
    elif result is not None and "test/acc" in result and tested is not None:
        accuracy, images, classes = result["test/acc"], tested.images, len(tested.counts.names)
        low, high = interval(accuracy, images)
        yield (
            f"An accuracy of {accuracy:.2%} on {images:,} images is an estimate: on very many "
            f"images like these, it would be between {low:.1%} and {high:.1%} (95% interval)."
        )
        if low <= 1 / classes <= high:
            yield f"That is no better than guessing one of {classes} classes ({1 / classes:.1%})."
    yield from _about_weights(config, result, curves)
    yield from _about_gap(curves, value_at(config, "trainer.ema", None))
    for name, what in (("train/loss", "training"), ("val/loss", "validation")):
        if (lost := _first_lost(curves.get(name))) is not None:
            yield (
                f"The {what} loss is NaN or infinite from step {lost:,} on, so the network has "
                f"learned nothing since. A lower optimizer.lr or trainer.gradient_clip_val=1 may "
                f"help."
            )


def _about_weights(
    config: Mapping[str, object], result: Result | None, curves: Curves
) -> Iterator[str]:
    monitor = str(value_at(config, "callbacks.checkpoint.monitor", "val/loss"))
    mode = mode_of(monitor, str(value_at(config, "callbacks.checkpoint.mode", "auto")))
    best = best_of(curves.get(monitor), less_is_better=mode == "min")
    if result is not None and "test/acc" in result:
        tested = result.get("tested_checkpoint")
        which = f"the best by {monitor}, {tested}" if tested else "those of the last step"
        decay = value_at(config, "trainer.ema", None)
        average = f", an average over the steps (trainer.ema={decay})" if decay else ""
        yield f"The test used these weights: {which}{average}."
    if best is not None:
        epoch, value, last = best
        at_end = f"; at the end it is {format_metric(monitor, last)}" if value != last else ""
        yield f"{monitor} was best after epoch {epoch:g}: {format_metric(monitor, value)}{at_end}."


def best_of(curve: Curve | None, *, less_is_better: bool) -> tuple[float, float, float] | None:
    """Return the epoch of a metric's best value, this value, and the last one."""
    finite = [i for i, v in enumerate(curve.values) if math.isfinite(v)] if curve else []
    if not finite or curve is None:
        return None
    choose = min if less_is_better else max
    at = choose(finite, key=curve.values.__getitem__)
    return curve.epochs[at], curve.values[at], curve.values[-1]


def _about_gap(curves: Curves, decay: object) -> Iterator[str]:
    train, val = curves.get("train/acc_epoch"), curves.get("val/acc")
    if not train or not val:
        return
    gap = train.values[-1] - val.values[-1]
    if not math.isfinite(gap):
        return
    text = (
        f"In the last epoch, the accuracy was {train.values[-1]:.2%} on the training images and "
        f"{val.values[-1]:.2%} on the validation images"
    )
    if gap > OVERFITTED:
        yield (
            f"{text}: a gap of {100 * gap:.1f} percentage points. The network knows its training "
            f"images better than new ones (overfitting); more images, augment=..., a higher "
            f"optimizer.weight_decay or callbacks.early_stopping.patience may help."
        )
        if decay:  # the training accuracy is that of the newest weights
            yield (
                f"Or the average of the weights, which the validation images are predicted with, "
                f"has not followed the weights yet, as in a short training: a trainer.ema below "
                f"{decay} would make the gap smaller."
            )
    elif gap < -OVERFITTED:
        yield (
            f"{text}. The first is the mean of the epoch, in which the network was still learning, "
            f"and augmentation and dropout make the training images harder."
        )
    else:
        yield f"{text}: a gap of {100 * gap:.1f} percentage points, so it hardly overfits."


def _first_lost(curve: Curve | None) -> int | None:
    """Return the step from which on no value is finite, or None."""
    if curve is None or math.isfinite(curve.values[-1]):
        return None
    finite = [i for i, value in enumerate(curve.values) if math.isfinite(value)]
    return curve.steps[finite[-1] + 1 if finite else 0]
