"""The pixels of images that a test expects in memory."""

from torch import Tensor

from convtrain.data.images import Images


def in_memory(images: Images) -> Tensor:
    assert isinstance(images.pixels, Tensor), f"{type(images.pixels).__name__} is not in memory"
    return images.pixels
