"""What the parts of the training loop are written from, and what each adds to it."""

import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from convtrain.assembly import build_model
from convtrain.config.schema import Config
from convtrain.training.freezing import Frozen, freeze
from convtrain.training.objectives import build_loss
from convtrain.training.parts import parts_of
from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import WIDTH
from convtrain.use.code.tensor_names import FileNames


class Part(NamedTuple):
    """The lines of a part, by their place in the file; ``left_out`` are keys without lines."""

    defined: Sequence[str] = ()  # before ``train()``
    model: Sequence[str] = ()  # after step 1
    data: Sequence[str] = ()
    ready: Sequence[str] = ()  # before the first epoch
    epoch: Sequence[str] = ()  # at the beginning of an epoch
    updating: Sequence[str] = ()  # before step 6
    updated: Sequence[str] = ()  # after step 6
    end: Sequence[str] = ()  # after the last epoch
    left_out: Sequence[str] = ()


class FrozenNetwork(NamedTuple):
    """The network of a run in modules, on the meta device, and what of it is frozen."""

    model: nn.Module
    frozen: Frozen

    @property
    def norms(self) -> dict[str, nn.Module]:
        """The norms that keep their statistics, by path."""
        return {p: each for p, each in self.model.named_modules() if each in self.frozen.norms}

    def start_epoch(self, key: str, parameter: nn.Parameter) -> float:
        """Return the epoch from which a parameter is trained; infinite for never."""
        return 0 if parameter.requires_grad else self.frozen.start_epochs.get(key, math.inf)


def frozen_network(config: Config) -> FrozenNetwork | None:
    """Return what a training freezes, or None if it is nothing."""
    if not config.model.freeze and not any(group.freeze for group in config.optimizer.groups):
        return None
    modules = config.model.model_copy(update={"style": "nn"})
    with torch.device("meta"):
        model = build_model(config.model_copy(update={"model": modules}))
        parts = parts_of(model, build_loss(config))
    return FrozenNetwork(model, freeze(config.optimizer, config.model, parts))


class Loop(NamedTuple):
    """A training whose loop is written.

    Attributes:
        names: of the file's tensors.
        is_multi_label: an image has any number of labels.
        start: the file with the weights of ``model.weights``.
    """

    config: Config
    class_name: str
    names: FileNames
    frozen: FrozenNetwork | None
    is_multi_label: bool
    start: str


def comment(text: str, indent: int = 4) -> list[str]:
    around = " " * indent + "# "
    return textwrap.wrap(text, WIDTH, initial_indent=around, subsequent_indent=around)


def changed(known: object, arguments: Mapping[str, object], *always: str) -> str:
    """Return the arguments that differ from the defaults of a class or function."""
    parameters = inspect.signature(known).parameters  # type: ignore[arg-type]

    def plain(value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    given = [
        f"{key}={literal(value)}"
        for key, value in arguments.items()
        if key in always or key not in parameters or plain(value) != plain(parameters[key].default)
    ]
    return ", ".join(given)
