"""Check ``optimizer.groups`` without the model: whose options they are, and their values.

Whether a glob matches a parameter is known once the model is built; see
:mod:`convtrain.training.optimizers.groups`.
"""

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import ValidationError

from convtrain.config.groups.optimizer import (
    GROUPING,
    Optimizer,
    OptimizerChoice,
    ParameterGroup,
)
from convtrain.config.messages import mistakes_in
from convtrain.config.mistakes import MISSING, Mistake
from convtrain.errors import did_you_mean

SECTIONS: dict[str, type[OptimizerChoice]] = {
    name: section
    for section in get_args(get_args(Optimizer)[0])
    for name in get_args(section.model_fields["name"].annotation)
}
"""The sections of the optimisers by name."""

OWN = tuple(ParameterGroup.model_fields)
DEFAULT = "default"  # the name of the parameters that no group matches


def group_mistakes(optimizer: Optimizer) -> Iterator[Mistake]:
    """Yield the mistakes in ``optimizer.groups`` that need no model to be found."""
    labels: list[str] = [DEFAULT]
    for index, group in enumerate(optimizer.groups):
        key = f"optimizer.groups.{index}"
        if group.name is not None and group.name in labels:
            yield Mistake(f"{key}.name", "is the name of another group; give it one of its own")
        labels.append(group.label)
        if group.lr is not None and group.lr_scale is not None:
            text = f"is a factor of optimizer.lr, but the group sets lr={group.lr:g}; give one"
            yield Mistake(f"{key}.lr_scale", text)
        if group.freeze and (more := [k for k in _given(group) if k not in ("match", "name")]):
            text = f"no optimiser updates frozen parameters, so {more[0]} has no effect; omit it"
            yield Mistake(f"{key}.freeze", text)
        if group.optimizer is None:
            yield from _wrong_options(type(optimizer), group.options, key, OWN)
        else:
            yield from _own_optimizer(group.optimizer, f"{key}.optimizer")
            for option in group.options:
                text = f"belongs to the group's own optimiser; type it in {key}.optimizer"
                yield Mistake(f"{key}.{option}", text)


def section_of_group(optimizer: Optimizer, group: ParameterGroup | None) -> OptimizerChoice:
    """Return the section of a group's optimiser; options that it leaves out are not set in it."""
    if group is None or group.optimizer is None:
        return optimizer
    section = SECTIONS[str(group.optimizer["name"])]
    return section.model_construct(None, **group.optimizer)  # type: ignore[arg-type]


def _given(group: ParameterGroup) -> list[str]:
    return [key for key in group.model_fields_set if getattr(group, key) is not None]


def _own_optimizer(declared: Mapping[str, object], key: str) -> Iterator[Mistake]:
    if "name" not in declared:
        yield Mistake(f"{key}.name", f"{MISSING}; choose from {', '.join(SECTIONS)}")
        return
    name = declared["name"]
    if not isinstance(name, str) or name not in SECTIONS:
        near = did_you_mean(str(name), SECTIONS) or f"; choose from {', '.join(SECTIONS)}"
        yield Mistake(f"{key}.name", f"there is no such optimiser{near}")
        return
    given = {option: value for option, value in declared.items() if option != "name"}
    if "lr" in (section := SECTIONS[name]).model_fields and "lr" not in given:
        yield Mistake(f"{key}.lr", f"{MISSING}; give the learning rate of {name}")
    yield from _wrong_options(section, given, key, ("lr",))


def _wrong_options(
    section: type[OptimizerChoice], given: Mapping[str, object], key: str, others: tuple[str, ...]
) -> Iterator[Mistake]:
    """Yield unknown options and wrong values; ``others`` are keys that are known as well."""
    options = {*section.model_fields} - GROUPING - {"name", "lr"}
    known = sorted({*options, *others})
    for option in given:
        if option not in known:
            near = did_you_mean(option, known) or f"; known here: {', '.join(known)}"
            yield Mistake(f"{key}.{option}", f"no such key{near}")
    right = {option: value for option, value in given.items() if option in known}
    try:
        section.model_validate(right)
    except ValidationError as error:
        for wrong in mistakes_in(error, right):
            if wrong.text.partition(" (")[0] != MISSING:
                yield Mistake(f"{key}.{wrong.key}", wrong.text)
