"""Images in TensorBoard: predictions on test images, and the filters of the first convolution."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from convtrain.data.batches import Normalisation
from convtrain.data.images import Images
from convtrain.data.randomness import permutation
from convtrain.errors import few
from convtrain.text import as_mathtext, boxes_for_missing_letters
from convtrain.training.hooks import TaskHooks
from convtrain.training.loggers.tensorboard import tensorboard_of
from convtrain.training.sharding import gathered

FILTER_PIXELS = 48  # filters are enlarged to about this side, without smoothing
MAX_FILTERS = 256
COLUMNS = 8
GAP_PIXELS = 4


class Pictures(pl.Callback):
    """Shows the filters before and after training, and predictions on ``count`` test images."""

    def __init__(
        self,
        *,
        test: Images,
        normalise: Normalisation,
        classes: Sequence[str],
        count: int,
        seed: int,
    ) -> None:
        self.images = test.pick(permutation(len(test), seed)[:count])
        self.normalise, self.classes = normalise, classes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None:
            self._show_filters(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, TaskHooks):  # a resumed training may have had no step left
            pl_module.use_average()
        self._show_filters(trainer, pl_module)

    @torch.no_grad()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tensorboard = tensorboard_of(trainer.loggers)
        if tensorboard is None or not len(self.images):
            return
        was_training = pl_module.training
        pl_module.eval()
        images = self.normalise(_pixels(self.images).to(pl_module.device))
        logits = pl_module(images.to(next(pl_module.parameters()).dtype))
        pl_module.train(was_training)
        # All processes compute the logits, because each may hold only a shard of the model.
        if logits.ndim != 2 or not trainer.is_global_zero:
            return  # with a loss that needs no classes, the output may have any shape
        predicted = logits.argmax(1) if self.images.labels.ndim == 1 else logits > 0
        figure = prediction_grid(self.images, predicted.cpu(), self.classes)
        with boxes_for_missing_letters():
            tensorboard.experiment.add_figure("test/predictions", figure, trainer.global_step)

    def _show_filters(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if (tensorboard := tensorboard_of(trainer.loggers)) is None:
            return
        for name, weight in module.named_parameters():
            if weight.ndim == 4 and weight.shape[-1] > 1:
                grid = filter_grid(gathered(weight.detach()).float().cpu())
                tag = f"filters/{name.removeprefix('model.')}"
                tensorboard.experiment.add_image(tag, grid, trainer.global_step)
                return


def prediction_grid(images: Images, predicted: Tensor, classes: Sequence[str]) -> Figure:
    """Draw images with the predicted label and, in brackets, the true one; errors are red.

    Labels and predictions are class indices (N,), or which classes apply (N, classes).
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height, width = images.pixels.shape[2:]
    side, title = 1.35 * min(height / width, 4), 0.3  # inches; an image is 1.35 wide
    figure = Figure(figsize=(1.5 * columns, (side + title) * rows + 0.4))
    figure.suptitle("predicted (true)", fontsize=10)
    # All images share one Axes: one for each takes longer than testing a small network.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1 - 0.4 / ((side + title) * rows + 0.4)))
    axes.axis("off")
    above = title / (side + title)  # height of an image's title, as a fraction of its cell
    for index, (pixels, label, guess) in enumerate(
        zip(_pixels(images), images.labels.tolist(), predicted.tolist(), strict=False)
    ):
        row, column = divmod(index, columns)
        extent = (column + 0.05, column + 0.95, row + 0.98, row + above)
        shown_channels = pixels if len(pixels) in (1, 3, 4) else pixels[:1]
        picture = shown_channels.permute(1, 2, 0).squeeze(-1).numpy()
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
        shown, true = _named(guess, classes), _named(label, classes)
        text = as_mathtext(f"{shown} ({true})")
        color = "black" if shown == true else "crimson"
        axes.text(column + 0.5, row + 0.85 * above, text, fontsize=9, color=color, ha="center")
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    return figure


def _named(label: int | list[float], classes: Sequence[str]) -> str:
    if isinstance(label, int):
        return classes[label]
    applying = [name for name, applies in zip(classes, label, strict=True) if applies > 0.5]
    return few(applying, 3) or "none"


def _pixels(images: Images) -> Tensor:
    return images.read(torch.arange(len(images)))


def filter_grid(weight: Tensor) -> Tensor:
    """Arrange filters (out, in, height, width) in a uint8 image (1 or 3, height, width).

    Zero is grey, more is brighter. Filters of three channels are in colour, others grey by channel.
    """
    if weight.shape[1] != 3:
        weight = weight.flatten(0, 1).unsqueeze(1)
    weight = weight[:MAX_FILTERS]
    largest = max(weight.abs().max().item(), 1e-12)
    tiles = (weight / largest + 1).mul(127.5).round().to(torch.uint8)
    scale = max(1, FILTER_PIXELS // weight.shape[-1])
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(tiles, nrow=COLUMNS, padding=GAP_PIXELS, pad_value=255)
    return grid[: tiles.shape[1]]  # make_grid repeats a grey channel three times
