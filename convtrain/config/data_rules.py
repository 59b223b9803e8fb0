"""Rules about the data by itself: shape, classes, sizes, memory and folders."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec

from convtrain.config.data_sections import GIB, OWN_VALIDATION, PUBLISHED, ImageFiles, ItemData
from convtrain.config.folders import SPLITS
from convtrain.config.groups.augment import Augment
from convtrain.config.groups.data import (
    Arrays,
    CustomData,
    Data,
    HuggingFace,
    Synthetic,
    TorchvisionByName,
)
from convtrain.config.groups.loss import Loss
from convtrain.config.mistakes import MISSING, Mistake, as_yaml, brief
from convtrain.config.torchvision_datasets import unknown
from convtrain.errors import closest
from convtrain.program import install, train_words

Mistakes = Iterator[Mistake]
OF_STORED, CROP = {"eval_crop", "decode"}, {"crop_scale", "crop_ratio"}
CROPS = ("RandomResizedCrop", "RandomCrop", "CenterCrop", "Resize", "RandomShortestSize")


def _channels(data: Data) -> Mistakes:
    channels = data.shape[0]
    for key in ("mean", "std"):
        if (found := len(getattr(data, key))) != channels:
            plural = "s" * (channels != 1)
            yield Mistake(
                f"data.{key}",
                f"has {found} values, data.shape={brief(data.shape)} has {channels} "
                f"channel{plural}; give one value for each channel",
            )
    if not isinstance(data, ImageFiles | ItemData):
        return
    if isinstance(data, ImageFiles) and channels not in (1, 3):
        yield Mistake("data.shape", "must have 1 channel for grey images or 3 for colour")
    if data.value_range is not None and data.value_range[0] >= data.value_range[1]:
        yield Mistake("data.value_range", "the first value becomes black and must be the smaller")


def _stored(data: Data, augment: Augment) -> Mistakes:
    """Keys of images of their own sizes need such images, and do not contradict them."""
    for key in sorted(CROP):
        if (limits := getattr(augment, key)) and limits[0] > limits[1]:
            yield Mistake(f"augment.{key}", "the first value is the smallest; swap them")
    if data.stored_side is None:
        for group, section, keys in (("data", data, OF_STORED), ("augment", augment, CROP)):
            for key in keys & type(section).model_fields.keys():
                if getattr(section, key) != type(section).model_fields[key].default:
                    text = "is about images of their own sizes; type data.store_size=256 as well"
                    yield Mistake(f"{group}.{key}", text)
        return
    if data.stored_side < (shorter := min(data.shape[1:])):
        yield Mistake(
            "data.store_size",
            f"is less than the shorter side of data.shape={brief(data.shape)}, so every image "
            f"would be enlarged; type data.store_size={math.ceil(shorter / 0.875)}",
        )
    if getattr(data, "resize", "crop") == "stretch":
        text = "changes the proportions, which data.store_size keeps; type data.resize=crop"
        yield Mistake("data.resize", text)
    for at, entry in enumerate(augment.transforms if augment.crop_scale else ()):
        name = next(iter(entry), "") if isinstance(entry, Mapping) else entry
        if name in CROPS:
            yield Mistake(
                f"augment.transforms.{at}",
                f"{name} would crop again what augment.crop_scale has cropped; type "
                f"augment.crop_scale=null, which gives the transforms the whole image",
            )


def class_mistakes(data: Data) -> Mistakes:
    names, count = data.classes, data.num_classes
    if names is None:
        found = isinstance(data, ImageFiles | Arrays)  # in the files, or they are reported
        if count is None and not found and _has_class_count(data):
            yield Mistake("data.num_classes", "must be given where data.classes is null")
        return
    if count not in (None, len(names)):
        yield Mistake(
            "data.num_classes",
            f"does not match the {len(names)} names in data.classes; set data.num_classes=null",
        )
    if twice := [name for name in names if names.count(name) > 1]:
        yield Mistake("data.classes", f"{brief(twice[0])} is listed more than once")


def _has_class_count(data: Data) -> bool:
    """Tell whether the number of classes is not that of a table, which another key selects."""
    if not isinstance(data, TorchvisionByName):
        return True
    return unknown(data.name) is None and data.row.classes is None


NAMES_DATA = (
    "type data._target_=mypackage.MyDataset for one dataset that is split, or "
    "data.train._target_=mypackage.MyDataset"
)


def _datasets(data: Data) -> Mistakes:
    """The datasets of data=custom are declared, and in one of the two ways."""
    if not isinstance(data, CustomData):
        return
    splits = [name for name in SPLITS if getattr(data, name) is not None]
    if data.target is not None:
        for name in splits:
            yield Mistake(
                f"data.{name}",
                "cannot be combined with data._target_, the one dataset that is split; type "
                f"data.train._target_={data.target} in its place, or leave data.{name} out",
            )
        return
    if "train" not in splits:
        key = "data.train" if splits else "data._target_"
        yield Mistake(key, f"{MISSING}; {NAMES_DATA}")
    for name in data.model_extra or {}:
        near = closest(name, CustomData.model_fields)
        key = f"data.{near}, or " if near is not None else ""
        text = f"did you mean {key}data.train.{name}, an argument of the dataset?"
        yield Mistake(f"data.{name}", f"no such key; {text}")


def class_count(data: Data) -> tuple[str, int | None]:
    names, count = data.classes, data.num_classes
    return ("data.num_classes", count) if names is None else ("data.classes", len(names))


def _one_class(data: Data, loss: Loss) -> Mistakes:
    key, count = class_count(data)
    if count == 1 and loss.name != "sum":
        told = "is one class, so that every answer would be right; give two or more"
        if data.is_multi_label:
            told = "is the only label; give the images without it another one, such as none"
        yield Mistake(key, told)


def _published(data: Data) -> Mistakes:
    known = None if isinstance(data, ItemData) else PUBLISHED.get(data.name)
    if known is None:
        return
    if tuple(data.shape) != known.shape:
        yield Mistake("data.shape", f"the images of {data.name} are {brief(list(known.shape))}")
    if data.name == "svhn" and find_spec("scipy") is None:
        needs = f"is read by scipy, which is not installed; {install('svhn')}"
        yield Mistake("data.name", needs)
    key, count = class_count(data)
    if count not in (None, len(known.training)):
        yield Mistake(key, f"{data.name} has {len(known.training)} classes")


def _torchvision(data: Data) -> Mistakes:
    """The dataset is in the table, and its classes are those of the table."""
    if not isinstance(data, TorchvisionByName):
        return
    if (reason := unknown(data.name)) is not None:
        yield Mistake("data.name", reason)
        return
    row = data.row
    if row.needs and not _is_installed(row.needs):
        needs = f"is read by {row.needs}, which is not installed; pip install {row.needs}"
        yield Mistake("data.name", needs)
    known, (key, count) = row.class_count(data.options), class_count(data)
    if isinstance(row.classes, Mapping) and known is None:
        yield Mistake(f"data.{row.by}", f"must be one of {', '.join(map(as_yaml, row.classes))}")
    elif known is not None and count not in (None, known):
        yield Mistake(key, f"{data.name} has {known} classes; leave it out")


def _hugging_face(data: Data) -> Mistakes:
    if isinstance(data, HuggingFace) and not _is_installed("datasets"):
        needs = f"is read by datasets, which is not installed; {install('huggingface')}"
        yield Mistake("data.name", needs)


def _is_installed(package: str) -> bool:
    """Tell whether a package is installed; a folder of its name does not count."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def synthetic_mistakes(data: Data) -> Mistakes:
    if not isinstance(data, Synthetic) or data.fill != "noise":
        return
    classes = data.class_count
    if data.train_size < 2 * classes:
        text = f"must be at least {2 * classes}, 2 for each of data.num_classes={classes}"
        yield Mistake("data.train_size", text)


MAX_FOLDS_TYPED = 10  # in a command that is advised


def _folds(data: Data) -> Mistakes:
    if (folds := data.folds) is None:
        if data.fold is not None:
            yield Mistake("data.fold", "is one of several parts; add data.folds=5")
        return
    if data.fold is None:
        listed = ",".join(map(str, range(folds)))
        typed = listed if folds <= MAX_FOLDS_TYPED else f"range(0,{folds})"
        sweep = shlex.join([*train_words(), "-m", f"data.folds={folds}", f"data.fold={typed}"])
        yield Mistake("data.folds", f"add data.fold=0 for one fold, or train all: {sweep}")
        return
    if data.fold >= folds:
        yield Mistake("data.fold", f"must be below data.folds={folds}; the first is data.fold=0")
    if isinstance(data, Synthetic) and data.fill == "ones":
        yield Mistake("data.folds", "data.fill=ones shows the same images in every split")
    if isinstance(data, CustomData) and data.val is not None:
        yield Mistake("data.folds", OWN_VALIDATION)
    full, needed = data.full_sizes(), folds * data.class_count
    if full is not None and (images := full.train + full.val) < needed:
        yield Mistake(
            "data.folds",
            f"needs at least {needed} images, one of each class in each part; there are {images} "
            f"for training and validation; set fewer folds",
        )
    elif full is not None and data.limit is not None and data.limit < needed:
        yield Mistake(
            "data.limit",
            f"must be at least {needed} with data.folds={folds}, for one image of each class in "
            f"each part",
        )


def _memory(data: Data) -> Mistakes:
    """Only an image folder may exceed the memory; it is then read from a file."""
    if isinstance(data, Synthetic):
        images, less = data.train_size + data.test_size, "data.train_size"
    else:
        images, less = sum(data.full_sizes() or ()), "another data"
    needed = images * math.prod(data.shape) / GIB
    if needed > data.memory_gib:
        yield Mistake(
            "data.memory_gib",
            f"{images:,} images of {brief(data.shape)} take {needed:.3g} GiB; "
            f"set data.memory_gib={needed * 1.01:.3g} or more, or choose {less}",
        )


DATA_RULES: tuple[Callable[..., Mistakes], ...] = (
    _channels, _stored, class_mistakes, _datasets, _one_class, _published, _torchvision,
    _hugging_face, synthetic_mistakes, _folds, _memory,
)  # fmt: skip
