"""The record in TensorBoard: a view of what the store holds, written when it is flushed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from convtrain.gradients.record.capture import LayerRecord
from convtrain.gradients.record.rows import Flushed, Row
from convtrain.gradients.record.statistics import BINS, LOWEST
from convtrain.text import as_markdown
from convtrain.training.callbacks.pictures import filter_grid
from convtrain.training.epochs import training_steps
from convtrain.training.loggers.tensorboard import tensorboard_of

STEP_TAGS = {
    "norm": "gradients/norm",
    "clipped_norm": "gradients/norm_after_clipping",
    "clip_coefficient": "gradients/clip_coefficient",
    "nonfinite": "gradients/nonfinite",
    "loss_scale": "gradients/loss_scale",
}
"""Columns of the table of steps, by the tag they have in TensorBoard."""


CURVE_POINTS = 250  # so that a run's cost is bounded; the store has all
PICTURES = 20  # of each filter; TensorBoard itself shows ten


class Mirror:
    """Writes rows as TensorBoard events, one for each step, with the step's own time.

    Args:
        writer: of the run's events.
        every_n_steps: steps between two points of a curve.
        picture_every_n_steps: steps between two pictures of a filter, at least.

    Attributes:
        graph: that was written last.
    """

    def __init__(
        self, writer: SummaryWriter, *, every_n_steps: int, picture_every_n_steps: int = 1
    ) -> None:
        self._writer, self.every_n_steps = writer, every_n_steps
        self._picture_every, self._next_picture = picture_every_n_steps, 0
        self.graph: Mapping[str, list[str]] = {}

    def write(self, flushed: Flushed, chosen: Sequence[bool]) -> None:
        """Write the rows of a flush.

        Args:
            chosen: whether a parameter is recorded, for each name.
        """
        tags = [f"grad_norm/{name}" for name in flushed.names]
        file = self._writer._get_file_writer()
        assert file is not None
        for index, row in enumerate(flushed.rows):
            values: list[Summary.Value] = []
            if row.step % self.every_n_steps == 0 or row.step == 1:
                for column in np.flatnonzero(flushed.present[index] & np.array(chosen)):
                    norm = flushed.norms[index, column]
                    values.append(Summary.Value(tag=tags[column], simple_value=norm))
                values += _step_values(flushed, index)
            values += _histograms(row, flushed.names, chosen)
            if row.layers is not None:
                values += _layer_values(row.layers)
            values += self._pictures(row)
            if values:
                event = Event(step=row.step, wall_time=row.time, summary=Summary(value=values))
                file.event_writer.add_event(event)
            if row.layers is not None and row.layers.graph != self.graph:
                self.graph = row.layers.graph
                self._writer.add_text("gradients/graph", graph_text(self.graph), row.step, row.time)

    def _pictures(self, row: Row) -> Iterator[Summary.Value]:
        if not row.pictures or row.step < self._next_picture:
            return
        self._next_picture = row.step + self._picture_every
        for name, (weight, gradient) in row.pictures.items():
            for what, tensor in (("filters", weight), ("filter_gradients", gradient)):
                if torch.isfinite(tensor).all():
                    yield picture(f"{what}/{name}", filter_grid(tensor.cpu()))


def mirror_of(trainer: pl.Trainer) -> Mirror | None:
    """Return the mirror in the trainer's TensorBoard logger, None without one."""
    tensorboard = tensorboard_of(trainer.loggers)
    if tensorboard is None:
        return None
    steps = training_steps(trainer)
    every, pictures = math.ceil(steps / CURVE_POINTS), math.ceil(steps / PICTURES)
    return Mirror(
        tensorboard.experiment, every_n_steps=max(1, every), picture_every_n_steps=pictures
    )


def picture(tag: str, pixels: Tensor) -> Summary.Value:
    """Return an image, uint8 of (1 or 3, height, width), as TensorBoard keeps it."""
    channels, height, width = pixels.shape
    png = BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy())
    image.save(png, "PNG", compress_level=1)  # takes a third of the usual time, and more room
    encoded = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
    )
    return Summary.Value(tag=tag, image=encoded)


def graph_text(graph: Mapping[str, list[str]]) -> str:
    """Return the grad_fn of every layer and those that come next on the way back, as Markdown."""
    lines = ["| layer | grad_fn | next functions |", "| --- | --- | --- |"]
    for layer, (grad_fn, *after) in graph.items():
        cells = map(as_markdown, (layer, grad_fn, ", ".join(after)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _step_values(flushed: Flushed, index: int) -> Iterator[Summary.Value]:
    clips = flushed.steps["clip_coefficient"][index] != 1.0
    for column, tag in STEP_TAGS.items():
        value = flushed.steps[column][index]
        if column.startswith("clip") and not clips and column != "clipped_norm":
            continue
        if not (column == "loss_scale" and np.isnan(value)):
            yield Summary.Value(tag=tag, simple_value=float(value))


def _layer_values(layers: LayerRecord) -> Iterator[Summary.Value]:
    for place, name in enumerate(layers.names):
        gradient = float(layers.gradients[place, 0])
        yield Summary.Value(tag=f"output_grad_norm/{name}", simple_value=gradient)


def _histograms(row: Row, names: Sequence[str], chosen: Sequence[bool]) -> Iterator[Summary.Value]:
    """Yield histograms over log2 of the magnitude."""
    if row.histograms is None:
        return
    for column, counts in zip(row.columns, _on_host(row.histograms), strict=True):
        if chosen[column] and counts[:BINS].any():
            histogram = log_histogram(counts[:BINS])
            yield Summary.Value(tag=f"grad_log2_magnitude/{names[column]}", histo=histogram)


def log_histogram(counts: np.ndarray) -> HistogramProto:
    """Return a TensorBoard histogram over log2 of the magnitude, without its empty ends."""
    filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    lefts = np.arange(first, last) + LOWEST
    kept = counts[first:last].astype(float)
    middles = lefts + 0.5
    return HistogramProto(
        min=float(lefts[0]),
        max=float(lefts[-1] + 1),
        num=float(kept.sum()),
        sum=float((kept * middles).sum()),
        sum_squares=float((kept * middles**2).sum()),
        bucket_limit=[float(lefts[0]), *(lefts + 1.0).tolist()],
        bucket=[0.0, *kept.tolist()],
    )


def _on_host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
