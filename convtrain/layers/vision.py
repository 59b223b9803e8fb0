"""Vision: rearrange pixels, resize, sample along a grid.

Some functions of ``torch.nn.functional`` have no class in ``torch.nn``; the classes here call them.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position


class Interpolate(nn.Module):
    """``F.interpolate``: resize in every mode, with antialiasing where asked for."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.antialias = align_corners, antialias
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
            self.antialias,
        )


class Pad(nn.Module):
    """``F.pad``: in every mode, any number of dimensions, the last one first."""

    def __init__(
        self, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> None:
        super().__init__()
        self.pad, self.mode, self.value = list(pad), mode, value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.pad, self.mode, self.value)


class Normalize(nn.Module):
    """``F.normalize``: divide by the norm along a dimension."""

    def __init__(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> None:
        super().__init__()
        self.p, self.dim, self.eps = p, dim, eps

    def forward(self, input: Tensor) -> Tensor:
        return F.normalize(input, self.p, self.dim, self.eps)


class OneHot(nn.Module):
    """``F.one_hot``: integers as vectors of integers in a new last dimension."""

    def __init__(self, num_classes: int = -1) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, input: Tensor) -> Tensor:
        return F.one_hot(input, self.num_classes)


class AffineGrid(nn.Module):
    """``F.affine_grid``: the grid of ``GridSample`` for affine maps of shape (N, 2, 3)."""

    def __init__(self, size: Sequence[int], align_corners: bool = False) -> None:
        super().__init__()
        self.size, self.align_corners = tuple(size), align_corners

    def forward(self, theta: Tensor) -> Tensor:
        return F.affine_grid(theta, list(self.size), self.align_corners)


class GridSample(nn.Module):
    """``F.grid_sample``: the input's values at the points of ``grid``."""

    def __init__(
        self, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
    ) -> None:
        super().__init__()
        self.mode, self.padding_mode, self.align_corners = mode, padding_mode, align_corners

    def forward(self, input: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(input, grid, self.mode, self.padding_mode, self.align_corners)


LAYERS = (
    Entry(nn.PixelShuffle, by_position(F.pixel_shuffle, "input", "upscale_factor")),
    Entry(nn.PixelUnshuffle, by_position(F.pixel_unshuffle, "input", "downscale_factor")),
    Entry(nn.ChannelShuffle, by_position(F.channel_shuffle, "input", "groups")),
    Entry(nn.Upsample, F.interpolate),
    Entry(nn.UpsamplingNearest2d, F.interpolate),
    Entry(nn.UpsamplingBilinear2d, F.interpolate),
    Entry(nn.Unfold, F.unfold),
    Entry(nn.Fold, F.fold),
    Entry(Interpolate, F.interpolate),
    Entry(Pad, F.pad),
    Entry(Normalize, by_position(F.normalize, "input", "p", "dim", "eps")),
    Entry(OneHot, by_position(F.one_hot, "input", "num_classes")),
    Entry(AffineGrid, by_position(F.affine_grid, "theta", "size", "align_corners")),
    Entry(GridSample, F.grid_sample),
)
