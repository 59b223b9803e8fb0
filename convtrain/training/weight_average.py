"""An exponential moving average of a model's weights, with which the model predicts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from convtrain.errors import ConfigError, CorruptDataError
from convtrain.training.checkpoint_file import Checkpoint
from convtrain.training.saved_weights import MODEL

AVERAGE = "average"  # key of a checkpoint

STATISTICS = ("running_mean", "running_var")
"""Buffers that are averaged. They belong to the weights that have made the activations: those of
the newest weights do not fit the average. timm, torchvision's references and Lightning average all
buffers, which turns an infinite one, such as a mask, into NaN; so the others stay as they are."""


class WeightAverage:
    """Averages a model's weights over the optimiser's steps.

    After the n-th step, with ``d = min(decay, (1 + n) / (10 + n))``::

        average = d * average + (1 - d) * weights

    This decay is TensorFlow's (``tf.train.ExponentialMovingAverage`` with ``num_updates``): the
    initial weights are forgotten within a few steps, and the average always covers about the last
    ninth of the steps, until ``1 / (1 - decay)`` steps are less.

    The model has the average during validation and test, and after the training; it trains with
    its own weights. They are exchanged by value, because optimiser, DistributedDataParallel, CUDA
    graphs and cuDNN's recurrent layers hold on to the tensors themselves.

    In a checkpoint, ``state_dict`` has the average, so that whatever reads the weights of a run
    gets those that were validated. ``average.trained`` has what a resumed training continues with.

    Attributes:
        updates: number of steps that are in the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self._others: dict[str, Tensor] = {}  # the average; or the weights, while it is in use
        self._pairs: list[tuple[Place, Tensor]] = []  # of what the model has and the other
        self._loaded: dict[str, Tensor] = {}
        self._in_use = False

    @torch.no_grad()
    def start(self, optimizers: Sequence[Optimizer], callbacks: Sequence[Callback] = ()) -> None:
        """Begin with the model's weights, or resume; the model is on its device.

        A ConfigError names a callback that averages the weights as well.
        """
        for each in callbacks:
            if isinstance(each, WeightAveraging):
                name = type(each).__name__
                raise ConfigError(
                    f"trainer.ema={self.decay:g}: the callback {name} averages the weights as "
                    f"well; leave one of them out"
                )
        pairs: dict[Tensor, tuple[Place, Tensor]] = {}  # tied weights have one average
        for name, place in averaged(self.model).items():
            _, average = pairs.setdefault(place.tensor, (place, place.tensor.clone()))
            if (loaded := self._loaded.get(MODEL + name)) is not None:
                average.copy_(loaded)
            self._others[name] = average
        self._pairs, self._loaded, self._in_use = [*pairs.values()], {}, False
        for optimizer in optimizers:  # a gradient scaler that skips a step calls no hook
            optimizer.register_step_post_hook(lambda *_: self.update())

    def update(self) -> None:
        """Take the weights after a step into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, weights = [a for _, a in self._pairs], [place.tensor for place, _ in self._pairs]
        get_ema_multi_avg_fn(decay)(averages, weights, None)

    @torch.no_grad()
    def use(self, wanted: bool) -> None:
        """Give the model the average, or its own weights back."""
        if wanted is not self._in_use and self._pairs:
            for place, other in self._pairs:
                kept = place.tensor.clone()
                place.tensor.copy_(other)
                other.copy_(kept)
            self._in_use = wanted

    def save(self, checkpoint: Checkpoint) -> None:
        """Put the average into ``state_dict``, and the weights beside it."""
        state, trained = checkpoint["state_dict"], {}
        for name, other in self._others.items():
            if (key := MODEL + name) in state:
                trained[key] = other if self._in_use else state[key]
                state[key] = state[key] if self._in_use else other
        checkpoint[AVERAGE] = {"updates": self.updates, "trained": trained}

    def load(self, checkpoint: Checkpoint) -> None:
        """Put the weights back into ``state_dict``, and keep the average for :meth:`start`."""
        state, saved = checkpoint["state_dict"], checkpoint.get(AVERAGE)
        if saved is None:
            raise CorruptDataError(
                f"the checkpoint is incomplete: it lacks {AVERAGE}, which trainer.ema={self.decay} "
                f"needs; resume the run with another checkpoint"
            )
        self.updates, trained = saved["updates"], saved["trained"]
        self._loaded = {key: state[key] for key in trained}
        state.update(trained)


class Place(NamedTuple):
    """Where a module has a tensor, which a move and a layer of one's own may replace."""

    holder: Mapping[str, Tensor | None]
    name: str

    @property
    def tensor(self) -> Tensor:
        tensor = self.holder[self.name]
        assert tensor is not None
        return tensor


def averaged(model: nn.Module) -> dict[str, Place]:
    """Return the places of what is averaged, by all of its names in ``state_dict``."""
    found: dict[str, Place] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        at = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None and not _is_whole(parameter):
                found[at + name] = Place(module._parameters, name)
        for name in STATISTICS:
            if module._buffers.get(name) is not None:
                found[at + name] = Place(module._buffers, name)
    return found


def _is_whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())
