"""The declared list of image transforms: classes of torchvision.transforms.v2, or of a user.

An entry is a name, or a name with arguments, as in a network's list of layers. A class of a user is
named by its import path, and its package by ``trust``. Making a list imports torch; nothing else
here does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import NamedTuple, get_args

from convtrain.config.mistakes import Mistake, brief, line
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

Transform = Callable[..., object]


class Named(NamedTuple):
    """A transform, and its key and value in the configuration."""

    where: str
    transform: Transform


def make_transforms(declared: Sequence[object], trust: Sequence[str]) -> list[Named]:
    """Make a declared list of transforms; ConfigError has one line for each mistake."""
    made, wrong = _make_all(declared, KEY, trust)
    if wrong:
        plain = {"augment": {"transforms": declared}}
        raise ConfigError(*(line(mistake, plain) for mistake in wrong))
    return [
        Named(f"{KEY}.{at}={brief(entry)}", transform)
        for at, (entry, transform) in enumerate(zip(declared, made, strict=True))
    ]


def transform_mistakes(declared: Sequence[object], trust: Sequence[str]) -> list[Mistake]:
    """Return what is wrong with a declared list of transforms."""
    return _make_all(declared, KEY, trust)[1]


def usable_names() -> list[str]:
    """Return the names of torchvision's transforms that a list may contain, sorted."""
    v2 = import_module(MODULE)

    def is_transform(found: object) -> bool:
        return isinstance(found, type) and issubclass(found, v2.Transform)

    return sorted(n for n, found in vars(v2).items() if is_transform(found) and n not in REFUSED)


def _make_all(
    declared: Sequence[object], key: str, trust: Sequence[str]
) -> tuple[list[Transform], list[Mistake]]:
    """Return the transforms of a list without those that cannot be made, and the mistakes."""
    made: list[Transform] = []
    wrong: list[Mistake] = []
    for at, entry in enumerate(declared):
        try:
            made.append(_make(entry, f"{key}.{at}", trust))
        except _WrongError as error:
            wrong += error.mistakes
    return made, wrong


class _WrongError(Exception):
    def __init__(self, *mistakes: Mistake) -> None:
        self.mistakes = mistakes


def _make(entry: object, key: str, trust: Sequence[str]) -> Transform:
    if isinstance(entry, str):
        name, where = entry, key
        arguments: object = {}
    elif isinstance(entry, Mapping) and len(entry) == 1 and "_target_" not in entry:
        ((name, arguments),) = entry.items()
        where = f"{key}.{name}"
    else:
        text = "write a name, or one name with its arguments, as {RandomErasing: {p: 0.2}}"
        raise _WrongError(Mistake(key, text))
    found = _class_of(str(name), key, trust)
    nests = found.__name__ in NESTED and _is_torchvision(found)
    if nests and isinstance(arguments, list):
        arguments = {"transforms": arguments}
    if not isinstance(arguments, Mapping):
        text = f"arguments are given by name, as {{{name}: {{argument: value}}}}"
        raise _WrongError(Mistake(where, text))
    taken, wrong = _converted(found, arguments, where)
    given = {}
    if nests and isinstance(inner := taken.get("transforms"), list):
        del taken["transforms"]
        given["transforms"], more = _make_all(inner, f"{where}.transforms", trust)
        wrong += more
    for each in wrong_arguments(found, taken, given=given):
        wrong.append(Mistake(f"{where}.{each.argument}", each.text))
    if wrong:
        raise _WrongError(*wrong)
    try:
        made = found(**taken, **given)
    except Exception as error:  # a user's class may raise anything
        said = first_line(error) if _is_torchvision(found) else error_line(error)
        raise _WrongError(Mistake(where, said)) from error
    assert callable(made)  # as all modules are
    return made


def _class_of(name: str, key: str, trust: Sequence[str]) -> Callable[..., object]:
    if "." not in (short := name.removeprefix(f"{MODULE}.")):
        name = short
    if "." in name:
        try:
            found = load(key, name, trust, TRANSFORM)
        except ConfigError as error:
            raise _WrongError(Mistake("", str(error))) from error
    else:
        usable = usable_names()
        if name not in usable and name not in REFUSED:
            near = did_you_mean(name, [*usable, *REFUSED]) or "; docs/data.md lists its transforms"
            raise _WrongError(Mistake(key, f"{MODULE} has no transform {name}{near}"))
        found = getattr(import_module(MODULE), name)
    if _is_torchvision(found) and (reason := REFUSED.get(found.__name__)) is not None:
        raise _WrongError(Mistake(key, f"{found.__name__} {reason}"))
    return found


def _is_torchvision(found: Callable[..., object]) -> bool:
    return found.__module__.startswith("torchvision.")


def _converted(
    found: Callable[..., object], arguments: Mapping[str, object], where: str
) -> tuple[dict[str, object], list[Mistake]]:
    """Replace words by the members of an enumeration, or the torch.dtype, that they name."""
    torch = import_module("torch")
    dtype: type = torch.dtype
    parameters, taken, wrong = parameters_of(found) or {}, dict(arguments), list[Mistake]()
    for name in arguments.keys() & parameters.keys():
        if not isinstance(word := arguments[name], str):
            continue
        known: dict[str, object] = {}
        for each in _parts(parameters[name].annotation):
            if isinstance(each, type) and issubclass(each, Enum):
                known |= {str(member.value): member for member in each}
            elif each is dtype:
                known |= {str(d): d for d in vars(torch).values() if isinstance(d, dtype)}
        if (value := known.get(word, known.get(f"torch.{word}"))) is not None:
            taken[name] = value
        elif known:
            near = did_you_mean(word, known) or f"; there are {few(known)}"
            wrong.append(Mistake(f"{where}.{name}", f"no such {name}{near}"))
    return taken, wrong


def _parts(annotation: object) -> Iterator[object]:
    """Yield the types in a union, or the type itself."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _parts(part)
