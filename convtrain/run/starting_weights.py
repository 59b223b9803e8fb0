"""What ``model.weights`` names: weights that a library publishes, a run, or a file."""

import re
from pathlib import Path
from typing import NamedTuple

from convtrain.config.groups.model import TORCHVISION, CustomModel, DeclaredModel
from convtrain.config.schema import Config
from convtrain.config.trust import TIMM
from convtrain.errors import ConfigError, ConvtrainError, MissingDataError
from convtrain.run.directory import Run


class Source(NamedTuple):
    """Where the weights are from that a training begins with.

    Attributes:
        weights: the value of ``model.weights``.
        library: torchvision or timm, if the weights are published by it.
        model: the library's name of the model; of torchvision's weights for a declared network,
            the network's name.
        run: the run that trained the weights, if they are a run's.
        path: the file; None for published weights, and for a run whose checkpoint is to be chosen.
    """

    weights: str
    library: str | None = None
    model: str = ""
    run: Run | None = None
    path: Path | None = None

    @property
    def where(self) -> str:
        """The override that names the weights, for errors and messages."""
        return f"model.weights={self.weights}"

    def refused(self, error: ConvtrainError) -> ConfigError:
        """Return an error about the weights, or about their run, that begins with the override."""
        text = str(error).removeprefix(f"{self.where}: ").removeprefix(f"{self.weights}: ")
        kind = MissingDataError if isinstance(error, MissingDataError) else ConfigError
        return kind(f"{self.where}: {text}")


def is_published_name(weights: str) -> bool:
    """Tell whether ``model.weights`` is a name such as DEFAULT; ``./DEFAULT`` is a path."""
    is_word = re.fullmatch(r"[^\W\d]\w*", weights) is not None
    return is_word and (weights.isupper() or not Path(weights).exists())


def source_of(config: Config) -> Source | None:
    """Return where the weights are from that a training begins with, or None.

    Raises:
        MissingDataError: there is no such file or run.
        ConfigError: no library publishes weights of such a model.
    """
    if (weights := config.model.starting_weights) is None:
        return None
    if is_published_name(weights):
        return Source(weights, *_published_as(config))
    path = Path(weights).expanduser()
    if path.is_dir():
        if not Run(path).is_begun:
            raise MissingDataError(
                f"model.weights={weights}: is a folder, and not that of a run; type the directory "
                f"of a run, or a file"
            )
        return Source(weights, run=Run(path))
    if not path.is_file():
        raise MissingDataError(
            f"model.weights={weights}: there is no such file or run; type DEFAULT, a file or the "
            f"directory of a run"
        )
    of_run = Run(path.parent.parent)
    is_checkpoint = path.parent == of_run.checkpoints and of_run.is_begun
    return Source(weights, run=of_run if is_checkpoint else None, path=path)


def _published_as(config: Config) -> tuple[str, str]:
    """Return the library that publishes weights of the model, and the library's name of it."""
    model = config.model
    if isinstance(model, DeclaredModel):
        return "torchvision", config.network.name
    if not isinstance(model, CustomModel):
        return model.style, model.name
    if model.target == TIMM:
        return "timm", str(model.arguments.get("model_name"))
    if model.target.startswith(TORCHVISION):
        return "torchvision", model.class_name
    raise ConfigError(
        f"model.weights={model.weights}: nobody publishes weights of {model.target} by name; type "
        f"a file or the directory of a run"
    )
