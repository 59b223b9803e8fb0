"""Where metrics are logged: convtrain's own files, and loggers of Lightning or of a user's own."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag, WrapValidator

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Section
from convtrain.config.targets import Target, named_or_as_it_is
from convtrain.config.trust import LOGGER

NEEDED = {
    "WandbLogger": ("wandb", "wandb"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "CometLogger": ("comet_ml", "comet-ml"),
    "LitLogger": ("litlogger", "litlogger"),
}
"""Logger of Lightning to the module that it imports, and the package to install."""


class LoggerTarget(Target):
    kind = LOGGER
    given = ("save_dir",)

    def mistakes(self) -> Iterator[Mistake]:
        yield from super().mistakes()
        module, package = NEEDED.get(self.class_name, ("", ""))
        if module and self.target.startswith("pytorch_lightning.") and find_spec(module) is None:
            text = f"{module} is not installed; pip install {package}"
            yield Mistake(f"{self.key}._target_", text)


class Logger(Section):
    tensorboard: bool = Field(description="write TensorBoard events")
    csv: bool = Field(description="write metrics.csv")
    images: Annotated[int, Field(ge=0, le=1024)] = Field(description="test images in TensorBoard")
    loggers: list[Annotated[LoggerTarget, WrapValidator(named_or_as_it_is)]] = Field(
        default=[], description="further loggers of Lightning or your own, each with a _target_"
    )

    @property
    def targets(self) -> list[LoggerTarget]:
        """All loggers that are named by a ``_target_``."""
        return self.loggers

    @property
    def own_files(self) -> "Logger":
        """The same without them."""
        return Logger(tensorboard=self.tensorboard, csv=self.csv, images=self.images)


class CustomLogger(LoggerTarget, Logger):
    """The same keys, and a logger whose arguments are the other keys of the section."""

    model_config = ConfigDict(extra="allow")

    @property
    def targets(self) -> list[LoggerTarget]:
        return [self, *self.loggers]


def _which(section: object) -> str:
    names = section if isinstance(section, dict) else vars(section)
    return "custom" if "_target_" in names or "target" in names else "shipped"


AnyLogger = Annotated[
    Annotated[Logger, Tag("shipped")] | Annotated[CustomLogger, Tag("custom")],
    Discriminator(_which),
]
