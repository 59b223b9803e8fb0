"""The weights that a training begins with, if they exist already: ``model.weights``."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from convtrain.command.following import expected_pixels, followed
from convtrain.config.dotted import value_at
from convtrain.config.groups.model import DeclaredModel
from convtrain.config.mistakes import brief
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError, few
from convtrain.models.published import names_of_torchvision, published, renamed
from convtrain.models.timm_models import tensors_from_timm
from convtrain.models.weights import Fit, copy_into, fit
from convtrain.run.directory import Run
from convtrain.run.starting_weights import Source, source_of
from convtrain.training.saved_weights import find_checkpoint, read_weights
from convtrain.training.weight_files import (
    downloaded,
    read_tensors,
    refuse_other_content,
    sha256_of,
    sha256_of_tensors,
)

log = logging.getLogger("convtrain")

WEIGHTS = "weights"  # key of provenance.json

Loaded = dict[str, object]
"""What provenance.json says of the weights that a training began with."""


class StartingWeights(NamedTuple):
    """Weights that have been read, and whose shapes fit the model.

    Attributes:
        file: what they are from, for messages.
        sha256: of the file; where timm keeps it to itself, of the tensors.
        classes: names of the classes, if a run has trained the weights.
        is_average: they are the average that a run with ``trainer.ema`` predicts with.
        network: the name of the declared network that they are for, if the model is one.
    """

    source: Source
    file: Path | str
    sha256: str
    tensors: Mapping[str, Tensor]
    classes: list[str] | None = None
    is_average: bool = False
    network: str | None = None

    def fit(self, model: nn.Module, classes: list[str] | None) -> Fit:
        """Match the tensors to those of a model; ``classes`` are the names in the data."""
        where = f"{self.source.where}: {Path(self.file).name}"
        differ = None not in (classes, self.classes) and classes != self.classes
        aliases = names_of_torchvision(self.network, model) if self.network else {}
        return fit(model, self.tensors, where, aliases=aliases, replace_head=differ)

    def load(self, model: nn.Module, config: Config, classes: Sequence[str] | None) -> Loaded:
        """Copy the weights into a model; return what provenance.json says of it.

        Args:
            classes: their names, if the data that was read has other names than the configuration.
        """
        fitted = self.fit(model, list(classes or config.data.class_names))
        copy_into(model, fitted)
        for line in (lines := self.lines(model, config, classes)):
            rank_zero_only(log.warning)("%s", line)
        return {
            "weights": self.source.weights,
            "file": str(self.file),
            "sha256": self.sha256,
            "loaded": len(fitted.tensors),
            "adapted": fitted.adapted,
            "replaced": fitted.replaced,
            "left_over": len(fitted.left_over),
            "summary": lines,
        }

    def lines(
        self, model: nn.Module, config: Config, classes: Sequence[str] | None = None
    ) -> list[str]:
        """Return the lines that tell what is loaded, and what the data has of the weights."""
        names = list(classes or config.data.class_names)
        fitted, channels = self.fit(model, names), config.data.shape[0]
        average = ", an average of the weights" if self.is_average else ""
        parts = [f"loaded {len(fitted.tensors)} tensors of {Path(self.file).name}{average}"]
        if fitted.adapted:
            plural = "s" * (channels != 1)
            parts.append(f"adapted {fitted.adapted[0]} ({channels} channel{plural} in place of 3)")
        if fitted.replaced:
            before = fitted.classes
            why = f"{len(names)} classes" + f" in place of {before}" * (before is not None)
            if before == len(names):
                why = f"classes {few(names, 3)} in place of {few(self.classes or (), 3)}"
            parts.append(f"replaced {few(fitted.replaced)} ({why})")
        left_over = f" ({few(fitted.left_over, 3)})" if fitted.left_over else ""
        parts.append(f"left over {len(fitted.left_over)}{left_over}")
        said = ["; ".join(parts), *self._images(config)]
        return [f"{self.source.where}: {text}" for text in said]

    def _images(self, config: Config) -> Iterator[str]:
        """Tell which values the data has of the weights, and which the user has set otherwise."""
        expected = followed(config, expected_pixels(self.source))
        own = {key: getattr(config.data, key) for key in expected}
        other = {key: value for key, value in own.items() if value != expected[key]}
        same = ", ".join(f"data.{k}={brief(v)}" for k, v in own.items() if k not in other)
        if same:
            yield f"{same} as the weights were trained with"
        if other:
            differ = [
                f"data.{k}={brief(v)} in place of {brief(expected[k])}" for k, v in other.items()
            ]
            yield f"other than the weights were trained with: {', '.join(differ)}"


def read_starting_weights(
    config: Config, model: nn.Module, run: Run | None = None
) -> StartingWeights | None:
    """Read the weights that a training begins with, and see whether they fit the model.

    The model, which may be on the meta device, is not changed. Weights that torchvision or timm
    publish are downloaded if they are not there. A ``run`` that is resumed has its own weights.

    Raises:
        MissingDataError: there is no such file or run, or it cannot be downloaded.
        ConfigError: the file is damaged or holds more than tensors, or does not fit the model.
    """
    resumes = run is not None and config.resume is not None and run.is_resumable
    if resumes or (source := source_of(config)) is None:
        return None
    is_declared = isinstance(config.model, DeclaredModel)
    found = _read(source)._replace(network=config.network.name if is_declared else None)
    found.fit(model, config.data.classes)
    return found


def refuse_changed(config: Config, provenance: Mapping[str, object]) -> None:
    """Raise ConfigError unless a run's weights are those that it began with."""
    before = provenance.get(WEIGHTS)
    if (source := source_of(config)) is None or not isinstance(before, dict):
        return
    found = _read(source)
    if found.sha256 != before.get("sha256"):
        raise ConfigError(
            f"{source.where}: {found.file} is not what the run began with: its SHA-256 is "
            f"{found.sha256[:8]}... and was {str(before.get('sha256'))[:8]}...; bring the file "
            f"back, or train a new run"
        )


def _read(source: Source) -> StartingWeights:
    try:
        return _read_file(source)
    except (CorruptDataError, MissingDataError) as error:
        raise source.refused(error) from error


def _read_file(source: Source) -> StartingWeights:
    if source.library == "timm":
        tensors = tensors_from_timm(source.model, source.weights)
        return StartingWeights(source, source.model, sha256_of_tensors(tensors), tensors)
    if source.run is not None:
        path = source.path or find_checkpoint(source.run)
        tensors = read_weights(path, source.run)
        config = source.run.read_config()
        return StartingWeights(
            source, path, sha256_of(path), tensors, _classes_of(source.run, config),
            is_average=value_at(config, "trainer.ema", None) is not None,
        )  # fmt: skip
    if source.path is not None:
        return StartingWeights(
            source, source.path, sha256_of(source.path), read_tensors(source.path)
        )
    url = published(source.model, source.weights).url
    path = downloaded(url, source.where)
    refuse_other_content(path, sha256 := sha256_of(path))
    return StartingWeights(source, path, sha256, renamed(read_tensors(path)))


def _classes_of(run: Run, config: object) -> list[str] | None:
    """Return the names of a run's classes, which are numbers if they have no others."""
    names = run.read_provenance().get("classes") or value_at(config, "data.classes", None)
    count = value_at(config, "data.num_classes", None)
    found = names if isinstance(names, list) else range(count) if isinstance(count, int) else None
    return None if found is None else list(map(str, found))
