"""A trained model as one module that takes raw pixels, and what its file says of itself."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import convtrain
from convtrain.data.decoding import Rules
from convtrain.errors import ConfigError
from convtrain.training.checkpoint_file import RUN_ID
from convtrain.use.formats.resize import Resize
from convtrain.use.trained import Trained

Predict = Callable[[Tensor], Tensor]
"""Maps raw pixels, uint8 (N, channels, height, width), to logits (N, classes)."""

IMAGES, LOGITS, BATCH = "images", "logits", "batch"


class PixelModel(nn.Module):
    """Maps raw pixels to logits: the normalisation, and if wanted the resize, are inside."""

    def __init__(
        self, model: nn.Module, normalise: Callable[[Tensor], Tensor], resize: Resize | None = None
    ) -> None:
        super().__init__()
        self.model, self.normalise, self.resize = model, normalise, resize

    def forward(self, images: Tensor) -> Tensor:
        if self.resize is not None:
            images = self.resize(images)
        logits: Tensor = self.model(self.normalise(images))
        return logits


@dataclass(frozen=True)
class Portable:
    """A trained model on the CPU in float32, without compilation and in the usual memory format."""

    trained: Trained
    model: PixelModel
    metadata: dict[str, object]  # can be written as JSON

    @property
    def example(self) -> Tensor:
        """Two images of the model's own size."""
        return torch.zeros(2, *self.trained.preprocessing.shape, dtype=torch.uint8)

    @property
    def free_dimensions(self) -> dict[int, str]:
        """The dimensions of the images that may have any size, and their names."""
        return {0: BATCH} if self.model.resize is None else {0: BATCH, 2: "height", 3: "width"}

    @property
    def texts(self) -> dict[str, str]:
        """The metadata for formats that hold texts; all but texts are JSON."""
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.metadata.items()}

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits of pixels that have the model's size already, without the resize."""
        with torch.inference_mode():
            logits: Tensor = self.model.model(self.model.normalise(pixels))
        return logits


def make_portable(trained: Trained, *, resize: bool = False) -> Portable:
    """Prepare a model that was loaded on the CPU; its weights become float32.

    Args:
        resize: images may have any size; the model resizes them by the rules of the training.
    """
    model, rules = trained.model.float(), trained.preprocessing.rules
    for tensor in (*model.parameters(), *model.buffers()):
        # The training may have laid them channels last, which contiguous() does not always undo.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    _, height, width = trained.preprocessing.shape
    if resize and (rules.store_size is not None or rules.interpolation != "bilinear"):
        typed = f"data.store_size={rules.store_size}, data.interpolation={rules.interpolation}"
        raise ConfigError(
            f"--resize: a file can hold the resize of images of data.shape, by the bilinear "
            f"filter, and the run has {typed}; leave --resize out, and choose --format python, "
            f"whose read() does the same"
        )
    inside = Resize(height, width, crop=rules.resize == "crop") if resize else None
    whole = PixelModel(model, trained.preprocessing.normalise, inside).eval()
    return Portable(trained, whole, _describe(trained, resize=resize))


def _described_resize(rules: Rules, *, inside: bool) -> dict[str, object]:
    _, height, width = rules.shape
    described: dict[str, object] = {"height": height, "width": width}
    if rules.store_size is None:
        how, filtered = rules.resize, f"Pillow {rules.interpolation.upper()}"
        return {**described, "how": how, "filter": filtered, "inside": inside}
    return {
        **described,
        "how": "the shorter side becomes at most store_size pixels; then the middle crop, whose "
        "sides are eval_crop of the largest that fits, is resized",
        "store_size": rules.store_size,
        "eval_crop": rules.eval_crop,
        "filter": f"torch interpolate, {rules.interpolation}, antialias=True, on uint8",
        "inside": False,
    }


def _describe(trained: Trained, *, resize: bool) -> dict[str, object]:
    """Return what a reader of the file must know."""
    shape, rules = trained.preprocessing.shape, trained.preprocessing.rules
    provenance = trained.run.read_provenance()
    size: list[object] = ["height", "width"] if resize else list(shape[1:])
    described: dict[str, object] = {
        "classes": trained.classes,
        "input": {"name": IMAGES, "dtype": "uint8", "shape": [BATCH, shape[0], *size]},
        "output": {
            "name": LOGITS,
            "dtype": "float32",
            "probabilities": "sigmoid" if trained.multi_label else "softmax",
        },
        "normalisation": {
            "formula": "(images / 255 - mean) / std",
            "mean": list(trained.preprocessing.mean),
            "std": list(trained.preprocessing.std),
            "inside": True,
        },
        "resize": _described_resize(rules, inside=resize),
        "model": trained.config.model_name,
        "style": trained.config.model.style,
        "run": trained.run.path.resolve().name,
        RUN_ID: provenance.get(RUN_ID),
        "checkpoint": trained.checkpoint.name,
        "git_commit": provenance.get("git_commit"),
        "trained_with": _versions(provenance),
        "exported_with": {"convtrain": convtrain.__version__, "torch": torch.__version__},
    }
    return {key: value for key, value in described.items() if value is not None}


def _versions(provenance: dict[str, object]) -> dict[str, object]:
    packages = provenance.get("packages")
    found = {"convtrain": provenance.get("convtrain")}
    if isinstance(packages, dict):
        found |= {name: packages.get(name) for name in ("torch", "torchvision", "pillow")}
    return {name: version for name, version in found.items() if version is not None}
