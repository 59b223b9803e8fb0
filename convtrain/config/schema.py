"""The schema of the whole configuration; ``groups/`` has a file for each group.

The YAML files in ``configs/`` hold the values. A field's description completes its error line.
"""

from typing import Literal

from pydantic import Field

from convtrain.config.groups.augment import Augment
from convtrain.config.groups.callbacks import Callbacks
from convtrain.config.groups.data import Data
from convtrain.config.groups.logger import AnyLogger
from convtrain.config.groups.loss import CustomLoss, Loss
from convtrain.config.groups.metrics import Metrics
from convtrain.config.groups.model import CustomModel, DeclaredModel, Model
from convtrain.config.groups.network import Network
from convtrain.config.groups.optimizer import Optimizer
from convtrain.config.groups.recorder import Recorder
from convtrain.config.groups.scheduler import Scheduler
from convtrain.config.groups.sweep import Sweep
from convtrain.config.groups.trainer import Trainer
from convtrain.config.section import Section, Seed, Text
from convtrain.config.targets import targets_in


class Config(Section):
    seed: Seed = Field(
        description="seed of the weights, the order of images, augmentation and dropout"
    )
    resume: Text | None = Field(description="directory of the run to resume")
    trust: list[Text] = Field(description="packages whose classes may be named by _target_")
    data: Data
    network: Network
    model: Model
    augment: Augment
    loss: Loss
    optimizer: Optimizer
    scheduler: Scheduler
    recorder: Recorder
    alarm: Literal["warn", "stop", "checkpoint", "off"] = Field(
        description="what convtrain does when a gradient alarm is raised"
    )
    trainer: Trainer
    callbacks: Callbacks
    logger: AnyLogger
    metrics: Metrics = Field(
        default={}, description="metrics by name, each with a _target_ and its arguments"
    )
    sweep: Sweep = Sweep()

    def model_post_init(self, context: object) -> None:
        for key, target in targets_in(self):
            target.place(key, self.trust)

    @property
    def model_name(self) -> str:
        """The name of the network, of a library's model or of the user's class."""
        if isinstance(self.model, CustomModel):
            return self.model.class_name
        return self.network.name if isinstance(self.model, DeclaredModel) else self.model.name

    @property
    def loss_name(self) -> str:
        """The name of the loss, or of the user's class or function."""
        return self.loss.class_name if isinstance(self.loss, CustomLoss) else self.loss.name
