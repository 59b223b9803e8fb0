"""Divide the parameters into groups.

The first group of ``optimizer.groups`` that matches a parameter's name decides on its optimiser and
its options. Then ``no_decay`` takes its weight decay away, and ``layer_decay`` multiplies its
learning rate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from torch import nn

from convtrain.config.groups import optimizer as section
from convtrain.config.parameter_groups import DEFAULT
from convtrain.errors import ConfigError, did_you_mean, few
from convtrain.models.head import WORDS, matching
from convtrain.text import matches
from convtrain.training.optimizers.presets import PRESETS, depths, without_decay
from convtrain.training.parts import Parts, named_parameters

NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Group:
    """Parameters with the same optimiser and the same options.

    Attributes:
        label: unlike that of all other groups.
        index: of the declared group in ``optimizer.groups``; -1 if no group matches.
        chosen: the section of the group's optimiser.
        start_epoch: the epoch from which they are trained, infinite if ``model.freeze`` freezes
            them for good.
        parameters: by name, in the order of the model.
    """

    label: str
    index: int
    chosen: section.Optimizer
    declared: section.ParameterGroup | None
    lr_scale: float
    no_decay: bool
    start_epoch: float
    parameters: dict[str, nn.Parameter]

    @property
    def is_frozen(self) -> bool:
        return self.declared is not None and self.declared.freeze

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimiser has: those that are trained, or will be."""
        is_later = 0 < self.start_epoch < math.inf
        return [p for p in self.parameters.values() if p.requires_grad or is_later]

    @property
    def options(self) -> dict[str, object]:
        """What differs from the optimiser's own options."""
        if self.declared is None:
            return {}
        rate = {} if self.declared.lr is None else {"lr": self.declared.lr}
        return {**rate, **self.declared.options}

    @property
    def key(self) -> str:
        """The dotted key of the optimiser."""
        own = self.declared is not None and self.declared.optimizer is not None
        return f"optimizer.groups.{self.index}.optimizer" if own else "optimizer"

    @property
    def has_own_rate(self) -> bool:
        """Whether the declared group sets the learning rate, which then has a log entry."""
        group = self.declared
        return group is not None and (
            group.optimizer is not None or group.lr is not None or group.lr_scale is not None
        )


def divide(
    chosen: section.Optimizer, parts: Parts, start_epochs: Mapping[str, float] = NOTHING
) -> list[Group]:
    """Return the groups of all parameters; first the default one, then those declared.

    Within each, the layers nearest to the output come first, weight decay before none, and what is
    trained from the start before the rest, whose epochs are ``start_epochs``. These are apart
    because an optimiser may begin all states of a group at once, as fused SGD does.

    Raises:
        ConfigError: a glob matches no parameter, or earlier groups have left nothing to a group.
    """
    named = dict(named_parameters(parts))
    match_of = _first_matches(chosen.groups, named, parts[""])
    refuse_unmatched("optimizer.no_decay", chosen.no_decay, named, PRESETS)
    no_decay = without_decay(parts, chosen.no_decay) if chosen.no_decay else set()
    depth = depths(parts) if chosen.layer_decay is not None else dict.fromkeys(named, 0)
    place = {n: (match_of[n], depth[n], n in no_decay, start_epochs.get(n, 0)) for n in named}
    groups: list[Group] = []
    ordered = sorted(named, key=place.__getitem__)  # stable, so that the model's order remains
    for (index, layer, without, start), names in groupby(ordered, key=place.__getitem__):
        declared = None if index < 0 else chosen.groups[index]
        label = DEFAULT if declared is None else declared.label
        if any(group.label == label for group in groups):
            label += f", depth {layer}" * bool(layer) + ", no decay" * without
            label += f", {frozen_until(start)}" * bool(start)
        scale = (declared.lr_scale if declared else None) or 1.0
        groups.append(
            Group(
                label=label,
                index=index,
                chosen=(declared.optimizer if declared else None) or chosen,
                declared=declared,
                lr_scale=scale * (chosen.layer_decay or 1.0) ** layer,
                no_decay=without,
                start_epoch=start,
                parameters={name: named[name] for name in names},
            )
        )
    return groups


def frozen_until(start_epoch: float) -> str:
    """Return ``frozen``, or until when, for a parameter that is not trained from the start."""
    return "frozen" if start_epoch == math.inf else f"frozen until epoch {start_epoch:g}"


def _first_matches(
    declared: Sequence[section.ParameterGroup], named: Mapping[str, object], model: nn.Module
) -> dict[str, int]:
    """Return by name the index of the first group that matches it, or -1."""
    found = dict.fromkeys(named, -1)
    for index, group in enumerate(declared):
        key = f"optimizer.groups.{index}.match"
        own = matching(group.globs, named, model)
        words = [word for word in WORDS if own or word not in group.globs]
        refuse_unmatched(key, group.globs, named, words)
        left = [name for name in own if found[name] < 0]
        if not left:
            earlier = sorted({found[name] for name in own})
            raise ConfigError(
                f"{key}={group.label}: earlier groups have left nothing to it, and the first match "
                f"wins; put it before optimizer.groups.{earlier[0]}"
            )
        found |= dict.fromkeys(left, index)
    return found


def refuse_unmatched(
    key: str, globs: Sequence[str], named: Mapping[str, object], words: Sequence[str] = ()
) -> None:
    """Raise ConfigError for a glob that is none of the words and matches no parameter."""
    for glob in globs:
        if glob not in words and not any(matches(name, [glob]) for name in named):
            ends = ((name, at) for name in named for at, sign in enumerate(name) if sign == ".")
            layers = dict.fromkeys(f"{name[:end]}.*" for name, end in ends)
            near = did_you_mean(glob, [*words, *layers, *named])
            raise ConfigError(f"{key}={glob}: matches no parameter{near}; there are {few(named)}")
