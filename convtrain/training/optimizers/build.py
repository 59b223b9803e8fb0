"""Build the optimiser of all parameter groups."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from typing import NamedTuple

from torch.optim import Optimizer

from convtrain.config.groups import optimizer as section
from convtrain.config.mistakes import brief
from convtrain.config.signatures import wrong_arguments
from convtrain.config.targets import Target
from convtrain.errors import ConfigError, few, first_line
from convtrain.training.optimizers.combined import CombinedOptimizer
from convtrain.training.optimizers.groups import NOTHING, Group, divide
from convtrain.training.parts import Parts, named_parameters


class GroupSummary(NamedTuple):
    """A group in the table of groups."""

    label: str
    optimizer: str | None  # None if it is frozen
    lr: float | None  # before the schedule's factor
    weight_decay: float | None
    names: list[str]  # of its parameters
    numbers: int
    start_epoch: float  # frozen before it


def make_optimizer(
    chosen: section.Optimizer,
    parts: Parts,
    *,
    fused: bool = True,
    start_epochs: Mapping[str, float] = NOTHING,
) -> Optimizer:
    """Build the chosen optimiser of all trained parameters; several act as one.

    ``fused`` updates all parameters of an optimiser in one kernel if torch can. ``start_epochs``
    are, by name, the epochs from which frozen parameters are trained. Groups that do not differ are
    given to torch as one, so that a group without effect changes no bit.

    Raises:
        ConfigError: an optimiser refuses its options or parameters.
    """
    alike: dict[str, list[Group]] = {}
    for group in divide(chosen, parts, start_epochs):
        if group.trained:
            own = (group.options, group.lr_scale, group.no_decay, group.start_epoch)
            settings = [group.key, *own]
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
    if isinstance(chosen, Target):
        _check_arguments(chosen, groups)
    try:
        built: Optimizer = chosen.build(params=params, **kernel)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{groups[0].key}: {first_line(error)}") from error
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


def _check_arguments(chosen: Target, groups: Sequence[Group]) -> None:
    """Check the options that groups add to those of an optimiser of the user's choice."""
    for group in groups:
        typed = {**chosen.arguments, **group.options}
        for argument, text in wrong_arguments(chosen.builder, typed, positional=1):
            if argument in group.options:
                key = f"optimizer.groups.{group.index}.{argument}"
                raise ConfigError(f"{key}={brief(group.options[argument])}: {text}")


def _refuse_unknown_options(groups: Sequence[Group], built: Optimizer) -> None:
    """Refuse what groups of an optimiser cannot have: torch would ignore it."""
    known = {option for made in built.param_groups for option in built.defaults or made}
    for group in groups:
        used = [*group.options, *(["lr"] if group.lr_scale != 1 else [])]
        if unknown := [option for option in used if option not in known]:
            key = f"optimizer.groups.{group.index}" if group.declared else "optimizer"
            raise ConfigError(
                f"{key}.{unknown[0]}: is the same for all parameters of {type(built).__name__}; "
                f"give the group an optimiser of its own. Groups can have {few(sorted(known))}"
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


def summarize(
    chosen: section.Optimizer, parts: Parts, start_epochs: Mapping[str, float] = NOTHING
) -> list[GroupSummary]:
    """Return the groups as a table shows them, frozen ones included."""
    built = make_optimizer(chosen, parts, fused=False, start_epochs=start_epochs)
    made = {id(p): group for group in built.param_groups for p in group["params"]}
    rows = []
    for group in divide(chosen, parts, start_epochs):
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
                start_epoch=group.start_epoch,
            )
        )
    return rows
