"""The class weights of ``loss.class_weights=balanced``, from the training images."""

from collections.abc import Sequence

from torch import Tensor

from convtrain.errors import ConfigError, few


def balanced_weights(labels: Tensor, names: Sequence[str]) -> list[float]:
    """Return a weight for each class, in inverse proportion to how many images have it.

    Class indices (N,) give ``N / (classes * images)``, scikit-learn's "balanced", whose mean over
    the images is 1. Labels (N, classes), the fraction of each in 0-1, give ``absent / present``,
    so that both answers of a label weigh alike.

    Raises:
        ConfigError: a class has no image, or a label is one of all images.
    """
    is_multi_label, count = labels.is_floating_point(), len(labels)
    present = labels.double().sum(0) if is_multi_label else labels.bincount(minlength=len(names))
    missing = [name for name, images in zip(names, present.tolist(), strict=True) if not images]
    if missing:
        raise ConfigError(
            f"loss.class_weights=balanced: no training image has the class {few(missing)}; give "
            f"a weight for each class, as a list, or images of it"
        )
    if not is_multi_label:
        return [count / (len(names) * images) for images in present.tolist()]
    always = [name for name, images in zip(names, present.tolist(), strict=True) if images == count]
    if always:
        raise ConfigError(
            f"loss.class_weights=balanced: all training images have the label {few(always)}, whose "
            f"weight would be 0; give a weight for each label, as a list"
        )
    return [(count - images) / images for images in present.tolist()]
