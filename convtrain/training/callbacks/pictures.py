"""What TensorBoard shows as images: test images with their predictions, and the first filters."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.data.batches import Normalisation
from convtrain.data.images import Images
from convtrain.data.randomness import permutation
from convtrain.text import as_mathtext, boxes_for_missing_letters
from convtrain.training.loggers.tensorboard import TensorBoard, tensorboard_of
from convtrain.training.sharding import gathered

FILTER_PIXELS = 48  # filters are enlarged to about this side, without smoothing
MOST_FILTERS = 256
GAP, WHITE = 4, 255  # between filters


class Pictures(pl.Callback):
    """Shows the filters before and after training, and predictions on test images.

    Args:
        test: the test split.
        classes: a name for each class.
        count: how many test images are shown.
    """

    def __init__(
        self,
        *,
        test: Images,
        normalise: Normalisation,
        classes: Sequence[str],
        count: int,
        seed: int,
    ) -> None:
        chosen = permutation(len(test), seed)[:count]
        self.shown, self.normalise, self.classes = test.pick(chosen), normalise, classes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tensorboard = tensorboard_of(trainer.loggers)
        if tensorboard is not None and trainer.ckpt_path is None:
            _show_filters(tensorboard, pl_module, trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (tensorboard := tensorboard_of(trainer.loggers)) is not None:
            _show_filters(tensorboard, pl_module, trainer.global_step)

    @torch.no_grad()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tensorboard = tensorboard_of(trainer.loggers)
        if tensorboard is None or not len(self.shown):
            return
        was_training = pl_module.training
        pl_module.eval()
        images = self.normalise(_pixels(self.shown).to(pl_module.device))
        scores = pl_module(images.to(next(pl_module.parameters()).dtype))
        pl_module.train(was_training)
        # Every process computes the scores, since a divided model needs all of them for it.
        if scores.ndim != 2 or not trainer.is_global_zero:
            return  # a loss that is no classification's leaves the shape open
        figure = prediction_grid(self.shown, scores.argmax(1).cpu(), self.classes)
        with boxes_for_missing_letters():
            tensorboard.experiment.add_figure("test/predictions", figure, trainer.global_step)


def prediction_grid(images: Images, predicted: Tensor, classes: Sequence[str]) -> Figure:
    """Draw images with the predicted label, and the true one in brackets; errors stand in red."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    height, width = images.pixels.shape[2:]
    side, title = 1.35 * min(height / width, 4), 0.3  # inches; an image is 1.35 wide
    figure = Figure(figsize=(1.5 * columns, (side + title) * rows + 0.4))
    figure.suptitle("predicted (true)", fontsize=10)
    # One pair of axes for all images: one for each takes longer than testing a small network.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1 - 0.4 / ((side + title) * rows + 0.4)))
    axes.axis("off")
    above = title / (side + title)  # an image's title, as a part of its cell
    for place, (pixels, label, guess) in enumerate(
        zip(_pixels(images), images.labels.tolist(), predicted.tolist(), strict=False)
    ):
        row, column = divmod(place, columns)
        extent = (column + 0.05, column + 0.95, row + 0.98, row + above)
        shown = pixels.permute(1, 2, 0).squeeze(-1).numpy()
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
        text = as_mathtext(f"{classes[guess]} ({classes[label]})")
        color = "black" if guess == label else "crimson"
        axes.text(column + 0.5, row + 0.85 * above, text, fontsize=9, color=color, ha="center")
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    return figure


def _pixels(images: Images) -> Tensor:
    return images.read(torch.arange(len(images)))


def _show_filters(tensorboard: TensorBoard, module: nn.Module, step: int) -> None:
    for name, weight in module.named_parameters():
        if weight.ndim == 4 and weight.shape[-1] > 1:
            grid = filter_grid(gathered(weight.detach()).float().cpu())
            tensorboard.experiment.add_image(f"filters/{name.removeprefix('model.')}", grid, step)
            return


def filter_grid(weight: Tensor) -> Tensor:
    """Arrange filters (out, in, height, width) as one image: zero is grey, more is brighter.

    Filters of three channels are shown in colour, others channel by channel in grey.

    Returns:
        uint8 of shape (1 or 3, height, width).
    """
    if weight.shape[1] != 3:
        weight = weight.flatten(0, 1).unsqueeze(1)
    weight = weight[:MOST_FILTERS]
    largest = max(weight.abs().max().item(), 1e-12)
    tiles = (weight / largest + 1).mul(127.5).round().to(torch.uint8)
    scale = max(1, FILTER_PIXELS // weight.shape[-1])
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return _arranged(F.pad(tiles, (GAP, 0, GAP, 0), value=WHITE))


def _arranged(tiles: Tensor) -> Tensor:
    """Join uint8 tiles (N, channels, height, width), each with its gap above and at the left."""
    columns = min(8, len(tiles))
    rows = -(-len(tiles) // columns)
    tiles = F.pad(tiles, (*(0,) * 6, 0, rows * columns - len(tiles)), value=WHITE)
    _, channels, height, width = tiles.shape
    grid = tiles.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(
        grid.reshape(channels, rows * height, columns * width), (0, GAP, 0, GAP), value=WHITE
    )
