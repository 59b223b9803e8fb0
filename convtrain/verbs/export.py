"""Write the model of a run as a file that other programs read.

Example: python -m convtrain export RUN                # the weights alone, of the last checkpoint
Example: python -m convtrain export RUN --format onnx  # a model that takes raw images

Formats, each of which holds class names, preprocessing and provenance as metadata:
  safetensors  weights for a model that is built anew; the normalisation is metadata
  pt2          a program of torch.export; it normalises uint8 images itself
  onnx         the same for ONNX Runtime; needs the extra onnx
  python       the same as a file of plain PyTorch, with its weights in a .pt file beside it
The file computes in float32. It is read back, and compared with the run on test images.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError, did_you_mean
from convtrain.text import format_bytes, make_console

if TYPE_CHECKING:
    from convtrain.use.export import Exported

NAMES = ("safetensors", "pt2", "onnx", "python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument("--format", metavar="FORMAT", help=f"{', '.join(NAMES)}; the weights alone")
    parser.add_argument(
        "--checkpoint", metavar="NAME",
        help="last, best, or the name of a file in RUN/checkpoints; if left out, the one that the "
        "run was tested with, and without --format the last",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="the file, if not RUN/model.FORMAT")
    parser.add_argument("--style", help="nn or functional, if not the style of the training")
    parser.add_argument(
        "--resize", action="store_true",
        help="pt2, onnx: take images of any size, and resize them as in training",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    if arguments.format is None:
        return _export_weights(arguments)
    if arguments.format not in NAMES:
        near = did_you_mean(arguments.format, NAMES)
        raise ConfigError(f"--format {arguments.format}: choose {', '.join(NAMES)}{near}")
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.use.export import export_model

    exported = export_model(
        arguments.run, arguments.format, checkpoint=arguments.checkpoint, out=arguments.out,
        style=arguments.style, resize=arguments.resize,
    )  # fmt: skip
    console = make_console()
    for line in (_written(exported), _takes(exported), _agrees(exported)):
        console.print(line)
    return 0


def _written(exported: "Exported") -> str:
    trained = exported.portable.trained
    files = (f"{file}: {format_bytes(file.stat().st_size)}" for file in exported.files)
    return f"{', '.join(files)}, from {trained.checkpoint.name}"


def _takes(exported: "Exported") -> str:
    portable = exported.portable
    channels, height, width = portable.trained.preprocessing.shape
    size = f"{height}, {width}"
    if not exported.normalises:
        does = "takes images that are normalised as its metadata says"
    elif portable.model.resize is None:
        does = "takes uint8 images and normalises them"
    else:
        does, size = "takes uint8 images, and resizes and normalises them", "any height, any width"
    precision = portable.trained.config.trainer.precision
    trained_in = "" if str(precision) in ("32", "32-true") else f"; the run in {precision}"
    return f"It {does}: (any N, {channels}, {size}). It computes in float32{trained_in}."


def _agrees(exported: "Exported") -> str:
    found = exported.agreement
    *some, last = map(str, found.batches)
    batches = f"{', '.join(some)} and {last}" if some else last
    line = (
        f"Read back by {exported.reader} on {found.images} {exported.images}, in batches of "
        f"{batches}: "
    )
    if not found.logits:
        return f"{line}the logits have the same bits as those of the run's model."
    line += f"the logits differ from those of the run's model by at most {found.logits:.2g}"
    if found.same_classes is None:
        return f"{line}."
    same = "all" if found.same_classes == found.images else f"{found.same_classes} of them"
    return f"{line}, the probabilities by {found.probabilities:.2g}; {same} have the same classes."


def _export_weights(arguments: argparse.Namespace) -> int:
    for option in ("style", "resize"):
        if getattr(arguments, option):
            raise ConfigError(f"--{option}: add --format, without which only weights are written")
    if arguments.out and Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out}: is a directory; give a file")
    from convtrain.use.export import export_weights

    file, source, count = export_weights(
        arguments.run, checkpoint=arguments.checkpoint or "last", out=arguments.out
    )
    size = format_bytes(file.stat().st_size)
    make_console().print(f"{file}: {count} tensors, {size}, from {source.name}")
    return 0
