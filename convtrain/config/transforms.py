"""The declared list of image transforms: classes of torchvision.transforms.v2, or of a user.

An entry is a name, or a name with arguments, as in a network's list of layers. A class of a user is
named by its import path, and its package by ``trust``. Making a list imports torch; nothing else
here does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, get_args

from convtrain.config.mistakes import Mistake, Origin, brief, line
from convtrain.config.signatures import parameters_of, wrong_arguments
from convtrain.config.trust import TRANSFORM, load
from convtrain.errors import ConfigError, did_you_mean, error_line, few, first_line

KEY, MODULE = "augment.transforms", "torchvision.transforms.v2"
NESTED = ("Compose", "RandomApply", "RandomChoice", "RandomOrder")
"""Transforms whose argument ``transforms`` is a list in the same form."""

_REASONS: dict[str, tuple[str, ...]] = {
    "takes a function, which a configuration cannot hold; write a class of your own and name it by "
    "its import path": ("Lambda",),
    "takes matrices, which a configuration cannot hold": ("LinearTransformation",),
    "is left out here, because images are normalised after augmentation; set data.mean and "
    "data.std": ("Normalize",),
    "mixes the images of a batch; type augment.mixup=ALPHA": ("MixUp",),
    "mixes the images of a batch; type augment.cutmix=ALPHA": ("CutMix",),
    "has nothing to do here, because images are tensors already; leave it out": ("ToTensor",),
    "makes several images of one": ("FiveCrop", "TenCrop"),
    "is for bounding boxes and key points, and images have only labels here": (
        "ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat", "RandomIoUCrop",
        "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode",
    ),
    "is for videos": ("UniformTemporalSubsample",),
    "is the base class; name a transform": ("Transform",),
}  # fmt: skip
REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}
"""Classes of torchvision.transforms.v2 that no list may contain, with the reason."""

Transform = Callable[..., Any]


class Named(NamedTuple):
    """A transform, and its key and value in the configuration."""

    where: str
    transform: Transform


def make_transforms(
    declared: Sequence[object], trust: Sequence[str], origin: Origin | None = None
) -> list[Named]:
    """Make a declared list of transforms; ConfigError has one line for each mistake."""
    wrong: list[Mistake] = []
    made = [_make(entry, f"{KEY}.{at}", trust, wrong) for at, entry in enumerate(declared)]
    if wrong:
        plain = {"augment": {"transforms": declared}}
        raise ConfigError(*(line(mistake, plain, origin) for mistake in wrong))
    return [
        Named(f"{KEY}.{at}={brief(entry)}", transform)
        for at, (entry, transform) in enumerate(zip(declared, made, strict=True))
        if transform is not None
    ]


def usable_names() -> list[str]:
    """Return the names of torchvision's transforms that a list may contain, sorted."""
    from torchvision.transforms import v2

    def is_transform(found: object) -> bool:
        return isinstance(found, type) and issubclass(found, v2.Transform)

    return sorted(n for n, found in vars(v2).items() if is_transform(found) and n not in REFUSED)


def _make(entry: object, key: str, trust: Sequence[str], wrong: list[Mistake]) -> Transform | None:
    """Make an entry; or return None, and add its mistakes to ``wrong``."""
    if isinstance(entry, str):
        name, where = entry, key
        arguments: object = {}
    elif isinstance(entry, Mapping) and len(entry) == 1 and "_target_" not in entry:
        ((name, arguments),) = entry.items()
        where = f"{key}.{name}"
    else:
        text = "write a name, or one name with its arguments, as {RandomErasing: {p: 0.2}}"
        wrong.append(Mistake(key, text))
        return None
    found = _class_of(str(name), key, trust, wrong)
    if found is None:
        return None
    if found.__name__ in NESTED:
        arguments = {"transforms": arguments} if isinstance(arguments, list) else arguments
    if not isinstance(arguments, Mapping):
        text = f"arguments are given by name, as {{{name}: {{argument: value}}}}"
        wrong.append(Mistake(where, text))
        return None
    before, taken = len(wrong), _converted(found, arguments, where, wrong)
    given = {}
    if found.__name__ in NESTED and "transforms" in taken:
        inside, inner = f"{where}.transforms", taken.pop("transforms")
        if not isinstance(inner, list):
            wrong.append(Mistake(inside, "must be a list of transforms"))
            return None
        each_made = (_make(each, f"{inside}.{at}", trust, wrong) for at, each in enumerate(inner))
        given["transforms"] = list(each_made)
    for each in wrong_arguments(found, taken, given=given):
        wrong.append(Mistake(f"{where}.{each.argument}", each.text))
    if len(wrong) > before:
        return None
    try:
        made: Transform = found(**taken, **given)
    except Exception as error:  # a user's class may raise anything
        said = first_line(error) if _is_torchvision(found) else error_line(error)
        wrong.append(Mistake(where, said))
        return None
    return made


def _class_of(
    name: str, key: str, trust: Sequence[str], wrong: list[Mistake]
) -> Callable[..., Any] | None:
    name = name.removeprefix(f"{MODULE}.")
    if "." in name:
        try:
            found = load(key, name, trust, TRANSFORM)
        except ConfigError as error:
            wrong.append(Mistake("", str(error)))
            return None
    else:
        from torchvision.transforms import v2

        usable = usable_names()
        if name not in usable and name not in REFUSED:
            near = did_you_mean(name, [*usable, *REFUSED]) or "; docs/data.md lists its transforms"
            wrong.append(Mistake(key, f"{MODULE} has no transform {name}{near}"))
            return None
        found = getattr(v2, name)
    if _is_torchvision(found) and (reason := REFUSED.get(found.__name__)) is not None:
        wrong.append(Mistake(key, f"{found.__name__} {reason}"))
        return None
    return found


def _is_torchvision(found: Callable[..., Any]) -> bool:
    return found.__module__.startswith("torchvision.")


def _converted(
    found: Callable[..., Any], arguments: Mapping[str, object], where: str, wrong: list[Mistake]
) -> dict[str, object]:
    """Replace words by the members of an enumeration, or the torch.dtype, that they name."""
    import torch

    parameters, taken = parameters_of(found) or {}, dict(arguments)
    for name in arguments.keys() & parameters.keys():
        if not isinstance(word := arguments[name], str):
            continue
        known: dict[str, object] = {}
        for each in _parts(parameters[name].annotation):
            if isinstance(each, type) and issubclass(each, Enum):
                known |= {str(member.value): member for member in each}
            elif each is torch.dtype:
                known |= {str(d): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
        if (value := known.get(word, known.get(f"torch.{word}"))) is not None:
            taken[name] = value
        elif known:
            near = did_you_mean(word, known) or f"; there are {few(known)}"
            wrong.append(Mistake(f"{where}.{name}", f"no such {name}{near}"))
    return taken


def _parts(annotation: object) -> Iterator[object]:
    """Yield the types in a union, or the type itself."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _parts(part)
