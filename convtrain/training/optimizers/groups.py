"""Divide the parameters into groups, and build the optimiser of all of them.

The first group of ``optimizer.groups`` that matches a parameter's name decides on its optimiser and
its options. Then ``no_decay`` takes its weight decay away, and ``layer_decay`` multiplies its
learning rate.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from itertools import groupby
from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer

from convtrain.config.groups import optimizer as section
from convtrain.config.parameter_groups import DEFAULT
from convtrain.config.targets import Target
from convtrain.errors import ConfigError, closest, did_you_mean, few, first_line
from convtrain.text import matches
from convtrain.training.optimizers.combined import CombinedOptimizer
from convtrain.training.optimizers.presets import PRESETS, depths, without_decay
from convtrain.training.parts import Parts, named_modules, named_parameters


@dataclass(frozen=True)
class Group:
    """Parameters with the same optimiser and the same options.

    Attributes:
        label: unlike that of all other groups.
        index: of the declared group in ``optimizer.groups``; -1 if no group matches.
        chosen: the section of the group's optimiser.
        parameters: by name, in the order of the model.
    """

    label: str
    index: int
    chosen: section.Optimizer
    declared: section.ParameterGroup | None
    lr_scale: float
    no_decay: bool
    parameters: dict[str, nn.Parameter]

    @property
    def is_frozen(self) -> bool:
        return self.declared is not None and self.declared.freeze

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters.values() if parameter.requires_grad]

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


class GroupSummary(NamedTuple):
    """A group in the table of groups."""

    label: str
    optimizer: str | None  # None if it is frozen
    lr: float | None  # before the schedule's factor
    weight_decay: float | None
    names: list[str]  # of its parameters
    numbers: int


def divide(chosen: section.Optimizer, parts: Parts) -> list[Group]:
    """Return the groups of all parameters; first the default one, then those declared.

    Within each, the layers nearest to the output come first, and weight decay before none.

    Raises:
        ConfigError: a glob matches no parameter, or earlier groups have left nothing to a group.
    """
    named = dict(named_parameters(parts))
    match_of = _first_matches(chosen.groups, named)
    _refuse_unmatched("optimizer.no_decay", chosen.no_decay, named, PRESETS)
    no_decay = without_decay(parts, chosen.no_decay) if chosen.no_decay else set()
    depth = depths(parts) if chosen.layer_decay is not None else dict.fromkeys(named, 0)
    place = {name: (match_of[name], depth[name], name in no_decay) for name in named}
    groups: list[Group] = []
    ordered = sorted(named, key=place.__getitem__)  # stable, so that the model's order remains
    for (index, layer, without), names in groupby(ordered, key=place.__getitem__):
        declared = None if index < 0 else chosen.groups[index]
        label = DEFAULT if declared is None else declared.label
        if any(group.label == label for group in groups):
            label += f", depth {layer}" * bool(layer) + ", no decay" * without
        scale = (declared.lr_scale if declared else None) or 1.0
        groups.append(
            Group(
                label=label,
                index=index,
                chosen=(declared.optimizer if declared else None) or chosen,
                declared=declared,
                lr_scale=scale * (chosen.layer_decay or 1.0) ** layer,
                no_decay=without,
                parameters={name: named[name] for name in names},
            )
        )
    return groups


def _first_matches(
    declared: Sequence[section.ParameterGroup], named: Mapping[str, object]
) -> dict[str, int]:
    """Return by name the index of the first group that matches it, or -1."""
    found = dict.fromkeys(named, -1)
    for index, group in enumerate(declared):
        key = f"optimizer.groups.{index}.match"
        _refuse_unmatched(key, group.globs, named)
        own = [name for name in named if matches(name, group.globs)]
        left = [name for name in own if found[name] < 0]
        if not left:
            earlier = sorted({found[name] for name in own})
            raise ConfigError(
                f"{key}={group.label}: earlier groups have left nothing to it, and the first match "
                f"wins; put it before optimizer.groups.{earlier[0]}"
            )
        found |= dict.fromkeys(left, index)
    return found


def _refuse_unmatched(
    key: str, globs: Sequence[str], named: Mapping[str, object], words: Sequence[str] = ()
) -> None:
    for glob in globs:
        if glob not in words and not any(matches(name, [glob]) for name in named):
            near = closest(glob, [*words, *named])
            raise ConfigError(
                f"{key}={glob}: matches no parameter; "
                + (f"did you mean {near}? " if near else "")
                + f"There are {few(named)}"
            )


def freeze(chosen: section.Optimizer, parts: Parts) -> list[nn.Module]:
    """Freeze the groups that say so; return their norms, in evaluation mode.

    These are the layers with running statistics whose parameters are all frozen.

    Raises:
        ConfigError: the groups do not fit the parameters, or nothing is left to train.
    """
    frozen = [group for group in divide(chosen, parts) if group.is_frozen]
    if not frozen:
        return []
    for group in frozen:
        for parameter in group.parameters.values():
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for _, parameter in named_parameters(parts)):
        keys = ", ".join(f"optimizer.groups.{group.index}" for group in frozen)
        raise ConfigError(f"{keys}: all parameters are frozen, so that nothing is trained")
    norms = [module for _, module in named_modules(parts) if _is_frozen_norm(module)]
    return [norm.eval() for norm in norms]


def _is_frozen_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    has_statistics = module._buffers.get("running_mean") is not None
    return has_statistics and bool(own) and not any(p.requires_grad for p in own)


def make_optimizer(chosen: section.Optimizer, parts: Parts, *, fused: bool = True) -> Optimizer:
    """Build the chosen optimiser of all trained parameters; several act as one.

    ``fused`` updates all parameters of an optimiser in one kernel if torch can. Groups that do not
    differ are given to torch as one, so that a group without effect changes no bit.

    Raises:
        ConfigError: an optimiser refuses its options or parameters.
    """
    alike: dict[str, list[Group]] = {}
    for group in divide(chosen, parts):
        if group.trained:
            settings = [group.key, group.options, group.lr_scale, group.no_decay]
            alike.setdefault(json.dumps(settings, sort_keys=True), []).append(group)
    groups = [_merged(each, parts) for each in alike.values()]
    by_optimizer: dict[str, list[Group]] = {}
    for group in groups:
        by_optimizer.setdefault(group.key, []).append(group)
    built = [_build(own, fused=fused) for own in by_optimizer.values()]
    if len(groups) > 1:
        _name_groups(groups, built)
    if len(built) == 1:
        return built[0]
    for key, optimizer in zip(by_optimizer, built, strict=True):
        closure = signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is Parameter.empty:
            raise ConfigError(
                f"{key}: {type(optimizer).__name__} repeats the forward pass within its step, so "
                f"it cannot be one of several optimisers; leave it out, or use it alone"
            )
    return CombinedOptimizer(built)


def _merged(groups: Sequence[Group], parts: Parts) -> Group:
    if len(groups) == 1:
        return groups[0]
    names = {name for group in groups for name in group.parameters}
    together = {name: p for name, p in named_parameters(parts) if name in names}
    return replace(groups[0], parameters=together)


def _build(groups: Sequence[Group], *, fused: bool) -> Optimizer:
    """Build one optimiser of groups."""
    chosen, parameters = groups[0].chosen, [p for group in groups for p in group.trained]
    plain = len(groups) == 1 and not groups[0].options
    params = parameters if plain else [{"params": g.trained, **g.options} for g in groups]
    fits = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    kernel = {"fused": True} if fused and fits and chosen.has_fused_kernel else {}
    try:
        built: Optimizer = chosen.build(params=params, **kernel)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{groups[0].key}: {first_line(error)}") from error
    if isinstance(chosen, Target):
        _refuse_unknown_options(groups, built)
    for group in groups:
        own = {id(parameter) for parameter in group.trained}
        for made in built.param_groups:  # an optimiser may divide them further
            if id(made["params"][0]) in own:
                if group.lr_scale != 1:
                    made["lr"] *= group.lr_scale
                if group.no_decay and "weight_decay" in made:
                    made["weight_decay"] = 0.0
    return built


def _refuse_unknown_options(groups: Sequence[Group], built: Optimizer) -> None:
    for group in groups:
        used = [*group.options, *(["lr"] if group.lr_scale != 1 else [])]
        if unknown := [option for option in used if option not in built.defaults]:
            key = f"optimizer.groups.{group.index}" if group.declared else "optimizer"
            near = did_you_mean(unknown[0], built.defaults)
            raise ConfigError(
                f"{key}.{unknown[0]}: the parameter groups of {type(built).__name__} have no such "
                f"option{near or f'; they have {few(built.defaults)}'}"
            )


def _name_groups(groups: Sequence[Group], built: Sequence[Optimizer]) -> None:
    """Name the first of a declared group's groups; its learning rate is logged under the name."""
    names: dict[int, str] = {}
    for group in groups:
        if group.has_own_rate and group.declared and group.declared.label not in names.values():
            names[id(group.trained[0])] = group.declared.label
    for optimizer in built:
        for made in optimizer.param_groups:
            if (first := id(made["params"][0])) in names:
                made["name"] = names[first]


def summarize(chosen: section.Optimizer, parts: Parts) -> list[GroupSummary]:
    """Return the groups as a table shows them, frozen ones included."""
    built = make_optimizer(chosen, parts, fused=False)
    made = {id(p): group for group in built.param_groups for p in group["params"]}
    rows = []
    for group in divide(chosen, parts):
        options = made[id(group.trained[0])] if group.trained else {}
        name = group.chosen.class_name if isinstance(group.chosen, Target) else group.chosen.name
        rows.append(
            GroupSummary(
                label=group.label,
                optimizer=name if group.trained else None,
                lr=options.get("lr"),
                weight_decay=options.get("weight_decay"),
                names=list(group.parameters),
                numbers=sum(parameter.numel() for parameter in group.parameters.values()),
            )
        )
    return rows
