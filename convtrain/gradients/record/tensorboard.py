"""Show the record in TensorBoard, at each flush."""

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import histogram_raw

from convtrain.gradients.record.capture import LayerRecord
from convtrain.gradients.record.histograms import BINS, LOWEST
from convtrain.gradients.record.statistics import NAMES, STATISTICS
from convtrain.gradients.record.steps import FlushedSteps, StepRecord
from convtrain.text import as_markdown
from convtrain.training.callbacks.pictures import filter_grid
from convtrain.training.epochs import training_steps
from convtrain.training.loggers.tensorboard import tensorboard_of

STEP_TAGS = {
    "norm": "norm",
    "clipped_norm": "norm_after_clipping",
    "clip_coefficient": "clip_coefficient",
    "nonfinite": "nonfinite",
    "loss_scale": "loss_scale",
}
"""From a column of the table of steps to NAME in its tag ``gradients/NAME``."""

CURVE_POINTS = 250  # per run; the record has every step
FILTER_IMAGES = 20  # per convolution; TensorBoard shows ten


class TensorBoardView:
    """Writes an event for each step, with the step's own time; nothing without TensorBoard."""

    def __init__(self, trainer: pl.Trainer) -> None:
        logger = tensorboard_of(trainer.loggers)
        self._writer: SummaryWriter | None = None if logger is None else logger.experiment
        steps = max(training_steps(trainer), 1)
        self._curve_every = math.ceil(steps / CURVE_POINTS)
        self._image_every, self._next_image = math.ceil(steps / FILTER_IMAGES), 0

    def write(self, flushed: FlushedSteps, chosen: Sequence[bool]) -> None:
        if self._writer is None:
            return
        events = self._writer._get_file_writer().event_writer
        for index, row in enumerate(flushed.rows):
            on_curve = row.step % self._curve_every == 0 or row.step == 1
            values = list(_statistics(flushed, index, np.array(chosen), on_curve=on_curve))
            if on_curve:
                values += _step_values(flushed, index)
            values += _histograms(row, flushed.names, chosen)
            if row.layers is not None:
                values += _layer_values(row.layers)
            values += self._filters(row)
            if values:
                event = Event(step=row.step, wall_time=row.time, summary=Summary(value=values))
                events.add_event(event)

    def write_graph(self, row: StepRecord, graph: Mapping[str, list[str]]) -> None:
        if self._writer is not None:
            text = graph_as_markdown(graph)
            self._writer.add_text("gradients/graph", text, row.step, row.time)

    def _filters(self, row: StepRecord) -> Iterator[Summary.Value]:
        if not row.filters or row.step < self._next_image:
            return
        self._next_image = row.step + self._image_every
        for name, (weight, gradient) in row.filters.items():
            for what, tensor in (("filters", weight), ("filter_gradients", gradient)):
                if torch.isfinite(tensor).all():
                    yield image_value(f"{what}/{name}", filter_grid(tensor.cpu()))


def _statistics(
    flushed: FlushedSteps, index: int, chosen: np.ndarray, *, on_curve: bool
) -> Iterator[Summary.Value]:
    is_sampled = flushed.rows[index].statistics is not None
    for name in (statistic.name for statistic in STATISTICS if statistic.in_tensorboard):
        if on_curve if name == "norm" else is_sampled:
            values = flushed.norms if name == "norm" else flushed.statistics[name]
            for column in np.flatnonzero(flushed.present[index] & chosen):
                tag = f"grad_{name}/{flushed.names[column]}"
                yield Summary.Value(tag=tag, simple_value=values[index, column])


def _step_values(flushed: FlushedSteps, index: int) -> Iterator[Summary.Value]:
    for column, tag in STEP_TAGS.items():
        value = float(flushed.steps[column][index])
        clips_nothing = column == "clip_coefficient" and value == 1
        has_no_scaler = column == "loss_scale" and math.isnan(value)
        if not (clips_nothing or has_no_scaler):
            yield Summary.Value(tag=f"gradients/{tag}", simple_value=value)


def _layer_values(layers: LayerRecord) -> Iterator[Summary.Value]:
    norms = layers.gradients[:, NAMES.index("norm")].tolist()
    for name, norm in zip(layers.names, norms, strict=True):
        yield Summary.Value(tag=f"output_grad_norm/{name}", simple_value=norm)


def _histograms(
    row: StepRecord, names: Sequence[str], chosen: Sequence[bool]
) -> Iterator[Summary.Value]:
    if row.histograms is None:
        return
    for column, counts in zip(row.columns, row.histograms.cpu().numpy(), strict=True):
        if chosen[column] and counts[:BINS].any():
            yield log_histogram(f"grad_log2_magnitude/{names[column]}", counts[:BINS])


def log_histogram(tag: str, counts: np.ndarray) -> Summary.Value:
    """Return a TensorBoard histogram over log2 of the magnitude, without its empty ends."""
    filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    lefts = np.arange(first, last) + LOWEST
    kept = counts[first:last].astype(float)
    middles = lefts + 0.5
    summary = histogram_raw(
        tag,
        min=float(lefts[0]),
        max=float(lefts[-1] + 1),
        num=float(kept.sum()),
        sum=float((kept * middles).sum()),
        sum_squares=float((kept * middles**2).sum()),
        bucket_limits=[float(lefts[0]), *(lefts + 1.0).tolist()],
        bucket_counts=[0.0, *kept.tolist()],
    )
    return summary.value[0]


def image_value(tag: str, pixels: Tensor) -> Summary.Value:
    """Return an image, uint8 of (1 or 3, height, width), as TensorBoard stores it."""
    channels, height, width = pixels.shape
    png = BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy())
    image.save(png, "PNG", compress_level=1)  # a third of the default's time, but larger
    encoded = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
    )
    return Summary.Value(tag=tag, image=encoded)


def graph_as_markdown(graph: Mapping[str, list[str]]) -> str:
    """Return a table of each layer's grad_fn and its next functions."""
    lines = ["| layer | grad_fn | next functions |", "| --- | --- | --- |"]
    for layer, (grad_fn, *following) in graph.items():
        cells = map(as_markdown, (layer, grad_fn, ", ".join(following)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
