"""Write a run's model in a format that others read, and compare what the file computes."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save

from convtrain.errors import ConfigError, ConvtrainError, TrainingError
from convtrain.models.build import Style
from convtrain.process.atomic import atomic_write
from convtrain.run.directory import Run
from convtrain.training.saved_weights import find_checkpoint, read_weights
from convtrain.use.formats import onnx, pt2, python, tensors
from convtrain.use.formats.compare import (
    Agreement,
    compare,
    images_to_compare,
    make_samples,
)
from convtrain.use.formats.portable import Portable, Predict, make_portable
from convtrain.use.formats.pt2 import shortened
from convtrain.use.load import load

WEIGHTS = "weights.safetensors"


class Format(NamedTuple):
    """How a format is written and read."""

    file: str  # its usual name, in the run's directory
    write: Callable[[Portable, Path], None]
    read: Callable[[Portable, Path], Predict]  # by the format's own runtime
    reader: str  # the name of that runtime
    resizes: bool = False


FORMATS = {
    "safetensors": Format(WEIGHTS, tensors.write, tensors.read, "safetensors, in a new model"),
    "pt2": Format("model.pt2", pt2.write, pt2.read, "torch.export.load", resizes=True),
    "onnx": Format("model.onnx", onnx.write, onnx.read, "onnxruntime", resizes=True),
    "python": Format("model.py", python.write, python.read, "Python"),
}


class Exported(NamedTuple):
    """The written files, the main one first, and how closely it agrees with the run."""

    files: tuple[Path, ...]
    portable: Portable
    agreement: Agreement
    images: str  # that were compared
    reader: str
    normalises: bool


def export_model(
    run_dir: Path | str,
    format: str,
    *,
    checkpoint: Path | str | None = None,
    out: Path | str | None = None,
    style: Style | None = None,
    resize: bool = False,
) -> Exported:
    """Write a run's model, read the file back, and compare its logits with those of the run.

    The file computes in float32. It takes its name only if the logits agree.

    Args:
        format: a key of :data:`FORMATS`.
        checkpoint, style: as for :func:`convtrain.load`.
        out: the file to write; by default it has its usual name in the run's directory.
        resize: the model takes images of any size, and resizes them as the training did.

    Raises:
        MissingDataError: the run or the checkpoint does not exist.
        ConfigError: the format cannot hold the model, or needs a package that is not installed.
        ConvtrainError: the file does not compute what the run computes.
    """
    chosen = FORMATS[format]
    if resize and not chosen.resizes:
        can = " or ".join(name for name, each in FORMATS.items() if each.resizes)
        raise ConfigError(f"--resize: {format} cannot hold a resize; choose --format {can}")
    if format == "onnx":
        onnx.require_packages()
    target = Path(out) if out is not None else Run(run_dir).path / chosen.file
    suffix = Path(chosen.file).suffix
    if target.suffix != suffix:
        raise ConfigError(f"--out {out}: --format {format} writes a file that ends in {suffix}")
    trained = load(run_dir, checkpoint, style, "cpu")
    images, source = images_to_compare(trained)
    portable = make_portable(trained, resize=resize)
    with _staged(target) as file:
        chosen.write(portable, file)
        samples = make_samples(portable, images)
        try:
            agreement = compare(portable, chosen.read(portable, file), samples)
        except ConvtrainError:
            raise
        except Exception as error:  # each runtime has errors of its own
            raise ConvtrainError(
                f"{target}: not written, because {chosen.reader} cannot run it: "
                f"{shortened(str(error))}"
            ) from error
        if not agreement.is_close:
            raise ConvtrainError(
                f"{target}: not written, because its logits differ from those of the run by up to "
                f"{agreement.logits:.2g}, and {agreement.allowed:.2g} is allowed; read by "
                f"{chosen.reader}, for {agreement.images} {source}"
            )
        written = tuple(target.with_name(each.name) for each in _in_order(file))
    return Exported(
        written, portable, agreement, source, chosen.reader, normalises=format != "safetensors"
    )


def _in_order(file: Path) -> list[Path]:
    """Return the files of a folder, a certain one first."""
    return sorted(file.parent.iterdir(), key=lambda each: (each.name != file.name, each.name))


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder; at the end, the folder's files move beside ``target``."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            file = Path(folder) / target.name
            yield file
            for each in reversed(_in_order(file)):  # the main file last
                each.replace(target.with_name(each.name))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise TrainingError(f"{target}: not written, {why}") from error


def export_weights(
    run_dir: Path | str, *, checkpoint: str = "last", out: Path | str | None = None
) -> tuple[Path, Path, int]:
    """Write a network's weights and buffers; return the file, its checkpoint, and the tensor count.

    Neither the configuration nor the model is needed. Load them by
    ``model.load_state_dict(safetensors.torch.load_file(out))``. Tensors that share memory are
    written once per name.

    Args:
        checkpoint: ``last``, ``best``, or the name of a file in ``RUN/checkpoints``.
        out: the file to write; ``RUN/weights.safetensors`` if None.

    Raises:
        MissingDataError: the run or the checkpoint does not exist.
        ConfigError: a value is not a dense tensor.
    """
    run = Run(run_dir)
    source = find_checkpoint(run, checkpoint)
    found = {name: tensors.plain(name, v) for name, v in read_weights(source, run).items()}
    target = Path(out) if out is not None else run.path / WEIGHTS
    with atomic_write(target) as writer:
        writer.write(save(found, metadata=tensors.FORMAT))
    return target, source, len(found)
