"""Check ``optimizer.groups`` as far as that needs no model.

Whether a glob matches a parameter is known once the model is built; see
:mod:`convtrain.training.optimizers.groups`.
"""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from convtrain.config.groups.optimizer import (
    GROUPING,
    Optimizer,
    OptimizerChoice,
    ParameterGroup,
)
from convtrain.config.messages import mistakes_in
from convtrain.config.mistakes import MISSING, Mistake
from convtrain.config.targets import Target
from convtrain.errors import did_you_mean

DEFAULT = "default"  # the label of the parameters that no group matches


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
        if group.freeze and (unused := _given(group)):
            text = f"no optimiser updates frozen parameters, so {unused[0]} has no effect; omit it"
            yield Mistake(f"{key}.freeze", text)
        if (own := group.optimizer) is None:
            yield from _wrong_options(optimizer, group.options, key)
            continue
        for option in own.model_fields_set & GROUPING:
            text = "is no option of a group's optimiser; type it outside of the groups"
            yield Mistake(f"{key}.optimizer.{option}", text)
        for option in [*group.options, *(o for o in ("lr",) if group.lr is not None)]:
            text = f"belongs to the group's own optimiser; type it in {key}.optimizer"
            yield Mistake(f"{key}.{option}", text)


def _given(group: ParameterGroup) -> list[str]:
    """Return the keys of a group that a frozen one cannot have."""
    keys = ("lr", "lr_scale", "optimizer", *group.options)
    return [key for key in keys if getattr(group, key, None) is not None]


def _wrong_options(
    section: OptimizerChoice, given: Mapping[str, object], key: str
) -> Iterator[Mistake]:
    """Yield the options of a group that its optimiser does not have, and wrong values."""
    if isinstance(section, Target):  # the class decides, once it is imported
        return
    options = {*type(section).model_fields} - GROUPING - {"name", "lr"}
    known = sorted({*options, *ParameterGroup.model_fields})
    for option in given:
        if option not in known:
            near = did_you_mean(option, known) or f"; known here: {', '.join(known)}"
            yield Mistake(f"{key}.{option}", f"no such key{near}")
    right = {option: value for option, value in given.items() if option in options}
    try:
        type(section).model_validate(right)
    except ValidationError as error:
        for wrong in mistakes_in(error, right):
            if wrong.text.partition(" (")[0] != MISSING:
                yield Mistake(f"{key}.{wrong.key}", wrong.text)
