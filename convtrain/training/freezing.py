"""Freeze parameters, for the whole training or until an epoch.

``model.freeze`` and the groups of ``optimizer.groups`` with ``freeze: true`` name them. A frozen
parameter has ``requires_grad=False``, so the backward pass ends above a frozen backbone. Its
gradient is None, for which every optimiser of torch leaves it alone, weight decay and momentum
included.
"""

import gc
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from convtrain.config.groups.model import ModelChoice
from convtrain.config.groups.optimizer import Optimizer
from convtrain.errors import ConfigError
from convtrain.models.head import BACKBONE, WORDS, matching
from convtrain.text import matches
from convtrain.training.optimizers.groups import NOTHING, divide, frozen_until, refuse_unmatched
from convtrain.training.parts import Parts, named_modules, named_parameters

log = logging.getLogger("convtrain")


class Frozen:
    """The frozen parameters, and the norms that are in evaluation mode because of them.

    Attributes:
        start_epochs: the epochs from which the parameters and buffers of ``model.freeze`` are
            trained, by name; infinite if they never are.
        norms: layers that normalise by their running statistics, and do not update them.
    """

    def __init__(
        self,
        parts: Parts,
        norms: Iterable[tuple[str, nn.Module]] = (),
        start_epochs: Mapping[str, float] = NOTHING,
    ) -> None:
        self._parts, self._norms, self.start_epochs = parts, dict(norms), start_epochs

    @property
    def norms(self) -> list[nn.Module]:
        return list(self._norms.values())

    def numbers(self) -> dict[str, int]:
        """Return the number of frozen weights, by how long: ``frozen until epoch 1``."""
        found: Counter[str] = Counter()
        for name, parameter in named_parameters(self._parts):
            if not parameter.requires_grad:
                found[frozen_until(self.start_epochs.get(name, math.inf))] += parameter.numel()
        return dict(found)

    def warn_if_never_due(self, max_epochs: int) -> None:
        """Warn, on rank 0, if the training ends before the epoch that unfreezes parameters."""
        first = min(self.start_epochs.values(), default=math.inf)
        if max_epochs <= first < math.inf:
            rank_zero_only(log.warning)(
                "model.unfreeze_at_epoch=%g: the training ends with epoch %d, so what "
                "model.freeze names is never trained; set a lower epoch, or train longer",
                first, max_epochs - 1,
            )  # fmt: skip

    def enter(self, epoch: int) -> bool:
        """Unfreeze what an epoch trains; return whether any parameter was frozen until now."""
        due = {name for name, start in self.start_epochs.items() if start <= epoch}
        changed = False
        for name, parameter in named_parameters(self._parts):
            if name in due and not parameter.requires_grad:
                parameter.requires_grad_(True)
                changed = True
        for path, norm in [*self._norms.items()]:
            if not due.isdisjoint(_tensors(path, norm)):
                del self._norms[path]
                norm.train(self._parts[""].training)
        return changed


def freeze(optimizer: Optimizer, model: ModelChoice, parts: Parts) -> Frozen:
    """Freeze the parameters of ``model.freeze`` and of the groups that say so.

    Their norms are in evaluation mode from here on: the layers with running statistics whose
    parameters are all frozen, or which have none and whose statistics ``model.freeze`` matches.

    Raises:
        ConfigError: a glob or a group does not fit the parameters, or nothing is left to train.
    """
    groups = [group for group in divide(optimizer, parts) if group.is_frozen]
    by_group = {name for group in groups for name in group.parameters}
    by_model = _matched(model.freeze, parts[""]) if model.freeze else set()
    if not by_group and not by_model:
        return Frozen(parts)
    named = dict(named_parameters(parts))
    for name in named.keys() & (by_group | by_model):
        named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        keys = ["model.freeze"] * bool(by_model) + [f"optimizer.groups.{g.index}" for g in groups]
        raise ConfigError(
            f"{', '.join(keys)}: all parameters are frozen, so that nothing is trained"
        )
    found = [(path, m) for path, m in named_modules(parts) if _is_frozen_norm(path, m, by_model)]
    for _, norm in found:
        norm.eval()
    start = math.inf if model.unfreeze_at_epoch is None else model.unfreeze_at_epoch
    return Frozen(parts, found, dict.fromkeys(by_model - by_group, start))


def wrap_again(strategy: Strategy) -> None:
    """Let DistributedDataParallel average the gradients of parameters that were frozen.

    It lists the parameters with ``requires_grad`` when it wraps the model, and no others.
    """
    if isinstance(strategy, DDPStrategy):
        strategy.model = strategy.lightning_module
        gc.collect()  # the wrapper, which refers to itself, with its hooks and its buckets
        strategy.configure_ddp()


def _matched(globs: list[str], model: nn.Module) -> set[str]:
    """Return the names of the model's parameters and buffers that ``model.freeze`` means."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    of_buffers = [glob for glob in globs if any(matches(name, [glob]) for name in buffers)]
    refuse_unmatched("model.freeze", globs, parameters, words=(*WORDS, *of_buffers))
    found = matching(globs, [*parameters, *buffers], model)
    if found.isdisjoint(parameters):
        refuse_unmatched("model.freeze", globs, parameters, words=WORDS)
        text = "only the head, the model's last layer, has parameters; omit it"
        raise ConfigError(f"model.freeze={BACKBONE}: {text}")
    return found


def _is_frozen_norm(path: str, module: nn.Module, matched: set[str]) -> bool:
    if module._buffers.get("running_mean") is None:
        return False
    own = list(module.parameters(recurse=False))
    if own:
        return not any(parameter.requires_grad for parameter in own)
    return not matched.isdisjoint(_tensors(path, module))


def _tensors(path: str, module: nn.Module) -> list[str]:
    """Return the names of a module's own parameters and buffers."""
    own = [*module._parameters, *module._buffers]
    return [f"{path}.{name}" if path else name for name in own]
