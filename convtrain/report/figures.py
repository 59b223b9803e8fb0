"""The figures of a run's page, each with a sentence that says how to read it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from convtrain.config.dotted import value_at
from convtrain.gradients.abbreviate import abbreviate
from convtrain.gradients.reading import NO_LOGARITHM
from convtrain.pages.bars import stacked
from convtrain.pages.heat_map import confusion_matrix, heat_map
from convtrain.pages.images import Picture, image_grid
from convtrain.pages.plots import Series, plot
from convtrain.pages.scales import MAX_TICK_LETTERS, Axis
from convtrain.report.calibration import Calibration
from convtrain.report.filters import as_pictures, read_filters
from convtrain.report.headline import Curves
from convtrain.report.record import Condensed
from convtrain.report.tested import Tested
from convtrain.run.result import Result
from convtrain.text import format_duration

SPEED = "images_per_second"
STEP = Axis("optimiser step")
PICTURE_PIXELS = 100
KINDS = tuple(zip(NO_LOGARITHM, ("#b8b8b8", "#000000", "#ff1f5b"), strict=True))
"""Colours of the cells that have no logarithm."""


# --- curves ---------------------------------------------------------------------------------------


def curve_figures(
    curves: Curves, result: Result | None, config: Mapping[str, object]
) -> Iterator[Markup]:
    """Yield a figure for each measure: loss, accuracy, the chosen metrics, the learning rates.

    Numbers that the user's callbacks have logged come last.
    """
    for measure, (title, axis, note) in _measures(curves, config).items():
        series = [s for s in _series(curves, measure, result) if np.isfinite(s.y).any()]
        if series:
            yield plot(title, series, STEP, axis, note=note)
    rates = {name: curve for name, curve in curves.items() if f"{name}/".startswith("lr/")}
    if rates:
        yield plot(
            "Learning rate",
            [Series(name, curve.steps, curve.values) for name, curve in rates.items()],
            STEP,
            Axis("learning rate"),
            note="How far a step moves the weights along the gradient; the scheduler changes it.",
        )
    for name, curve in curves.items():
        if not f"{name}/".startswith(("train/", "val/", "test/", "lr/", f"{SPEED}/")):
            yield plot(name, [Series(name, curve.steps, curve.values)], STEP, Axis(name))


def _measures(curves: Curves, config: Mapping[str, object]) -> dict[str, tuple[str, Axis, str]]:
    """Return title, vertical axis and note by the name of a measure, such as ``loss``."""
    found = {
        "loss": (
            "Loss",
            Axis(f"loss ({value_at(config, 'loss.name', 'custom')})", log=_spans_decades(curves)),
            "How wrong the predictions are; training lowers it. A validation loss that rises while "
            "the training loss falls is a sign of overfitting.",
        ),
        "acc": (
            "Accuracy",
            Axis("accuracy", percent=True),
            "The fraction of the images that are classified correctly; where an image has any "
            "number of labels, the fraction of the labels that are right.",
        ),
    }
    for name in curves:
        split, _, measure = name.partition("/")
        if split == "val" and measure not in found:
            found[measure] = (measure, Axis(measure), "Over the validation images.")
    return found


def _spans_decades(curves: Curves) -> bool:
    values = [
        v for name in ("train/loss", "val/loss") if name in curves for v in curves[name].values
    ]
    positive = [v for v in values if 0 < v < np.inf]
    return len(positive) == len(values) > 1 and max(positive) > 30 * min(positive)


def _series(curves: Curves, measure: str, result: Result | None) -> Iterator[Series]:
    """Yield what is drawn of a measure: training by log entry and by epoch, validation, test."""
    if (curve := curves.get(f"train/{measure}")) is not None:
        yield Series("training, each log entry", curve.steps, curve.values, colour=1, faint=True)
    if (curve := curves.get(f"train/{measure}_epoch")) is not None:
        yield Series("training, epoch", curve.steps, curve.values, colour=1)
    if (curve := curves.get(f"val/{measure}")) is not None:
        yield Series("validation", curve.steps, curve.values, colour=2)
    tested = result.get(f"test/{measure}") if result is not None else None
    if isinstance(tested, float) and result is not None:
        yield Series("test", [result["steps"]], [tested], "dots", colour=3)


# --- predictions ----------------------------------------------------------------------------------


def matrix(confusion: np.ndarray, names: Sequence[str]) -> Markup:
    return confusion_matrix(
        "Confusion matrix",
        confusion,
        names,
        note="A row has the images of one class, a column those that were predicted as one class. "
        "Correct predictions are on the diagonal; every other cell counts mistakes.",
    )


def reliability(found: Calibration) -> Markup:
    """Draw how often predictions are right, over how sure the network was."""
    bins = len(found.images)
    held = found.images > 0
    sure = "too sure of itself" if found.overconfident > 0 else "less sure than it could be"
    return plot(
        "Calibration",
        [
            Series(
                "images",
                (np.arange(bins) + 0.5) / bins,
                found.images / found.images.sum(),
                "bars",
                0,
            ),
            Series("if well calibrated", [0, 1], [0, 1], colour=0, dashed=True),
            Series("", found.confidence[held], found.accuracy[held], colour=1, faint=True),
            Series("this run", found.confidence[held], found.accuracy[held], "dots", colour=1),
        ],
        Axis("probability of the predicted class", percent=True, low=0, high=1),
        Axis("fraction that is correct", percent=True, low=0, high=1),
        square=True,
        note=f"A dot is a group of images with about the same probability, a grey column how many "
        f"they are. On the dashed line, predictions of 80% would be right 80% of the time. The "
        f"mean distance from it is the expected calibration error (ECE): {found.error:.2%}. On "
        f"the whole, the network is {sure}, by {abs(found.overconfident):.2%}.",
    )


def mistake_pictures(tested: Tested) -> Markup:
    """Draw images with the predicted class, the true one, and the probabilities of both."""
    shown = [mistake for mistake in tested.mistakes if mistake.picture is not None]
    return image_grid(
        "The most confident mistakes",
        [
            Picture(
                as_shown(mistake.picture),
                f"{mistake.predicted} {mistake.probability:.1%}",
                f"is {mistake.true} {mistake.of_true:.1%}",
            )
            for mistake in tested.mistakes
            if mistake.picture is not None
        ],
        size=PICTURE_PIXELS,
        note=f"{len(shown)} of {tested.wrong:,} mistakes, those of which the network was surest: "
        f"the class that it predicted with its probability, and the true class with its. Look for "
        f"wrong labels, and for what these images have in common.",
    )


def as_shown(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (channels, height, width) that a browser can show: other channels than the
    first are left out unless there are 3 or 4."""
    return pixels if len(pixels) in (1, 3, 4) else pixels[:1]


# --- gradients and weights ------------------------------------------------------------------------


def gradient_figures(found: Condensed) -> Iterator[Markup]:
    """Yield the heat map of layers by steps, unless there is one step, and the flow by layer."""
    layers = Axis("layer, from the input down", labels=abbreviate(found.layers, MAX_TICK_LETTERS))
    if found.largest.shape[1] > 1:
        yield heat_map(
            "Gradient norm of each layer at each step",
            found.largest,
            Axis("optimiser step", low=found.first, high=found.last + 1),
            layers,
            label="gradient norm (L2)",
            log=True,
            kinds=found.kinds,
            kind_names=KINDS,
            note="A row is a layer, a column a step, or the largest norm of a few steps. Rows that "
            "darken towards the input lose their gradient on the way back; a bright column is a "
            "step that moved the weights far.",
        )
    phases = (
        [("first tenth of the steps", found.early), ("last tenth of the steps", found.late)]
        if not np.array_equal(found.early, found.late, equal_nan=True)
        else [("mean of all steps", found.early)]
    )
    if len(found.layers) == 1:
        return
    rows = np.arange(len(found.layers))
    kinds = np.array([_kind_of(layer) for layer in found.layers])
    lines = [
        Series("", values[kinds == kind], rows[kinds == kind], colour=colour, faint=True)
        for colour, (_, values) in enumerate(phases, 1)
        for kind in dict.fromkeys(kinds.tolist())
    ]
    dots = [
        Series(name, values, rows, "dots", colour=colour)
        for colour, (name, values) in enumerate(phases, 1)
    ]
    yield plot(
        "Gradient flow",
        [*lines, *dots],
        Axis("mean gradient norm (L2)", log=True),
        layers,
        note="How large the gradient is that reaches each layer; lines join layers of one kind, "
        "such as all convolutions. If it falls steadily by many powers of ten towards the input, "
        "the first layers hardly learn.",
    )


def _kind_of(layer: str) -> str:
    """Return the name of a layer in its module without its number, such as ``conv2d``."""
    return layer.rpartition(".")[2].rstrip("_0123456789")


def filter_figure(checkpoint: Path) -> Markup | None:
    """Draw the filters of the first convolution, if it takes grey or colour images."""
    if (found := read_filters(checkpoint)) is None:
        return None
    layer, filters = found
    height, width = filters.shape[2:]
    is_grey = filters.shape[1] == 1
    colours = "blue is negative, white zero, red positive" if is_grey else "grey is zero"
    return image_grid(
        f"First filters: {layer}",
        [Picture(pixels) for pixels in as_pictures(filters)],
        size=44,
        note=f"{len(filters)} filters of {height} x {width} weights from {checkpoint.name}, all on "
        f"one scale: {colours}. Filters that look like edges and blobs have learned something; "
        f"those that look like noise have not.",
    )


# --- time -----------------------------------------------------------------------------------------


def time_figures(curves: Curves, result: Result | None) -> Iterator[Markup]:
    """Yield where the wall time went, if the run's version has measured it, and the speed."""
    if result is not None and (seconds := result.get("seconds")) is not None:
        outside = seconds["start"] + seconds["train"] + seconds["val"] + seconds["test"]
        parts = [
            ("making data and model", seconds["start"]),
            ("training steps", seconds["train"] - seconds["data"] - seconds["recorder"]),
            ("waiting for batches", seconds["data"]),
            ("gradient recorder", seconds["recorder"]),
            ("validation", seconds["val"]),
            ("test", seconds["test"]),
            ("checkpoints and the rest", result["wall_time_seconds"] - outside),
        ]
        yield stacked(
            "Where the time went",
            [(name, value) for name, value in parts if value > 0],
            format_duration,
            note="The wall time of the training process, without the start of Python and its "
            "libraries. Of a resumed run, the time since it was resumed.",
        )
    if (curve := curves.get(SPEED)) is not None:
        yield plot(
            "Speed of training",
            [Series("images / s", curve.steps, curve.values)],
            STEP,
            Axis("images / s"),
            note="The first steps are slower: libraries and caches warm up.",
        )
