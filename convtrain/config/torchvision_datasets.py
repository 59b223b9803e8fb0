"""The classification datasets of ``torchvision.datasets``, in their authors' numbers.

The table needs neither torch nor files, so that a network can be built before anything is read.
:func:`constructor` imports torchvision.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from convtrain.config.signatures import parameters_of
from convtrain.errors import ConfigError, closest, few

Splits: TypeAlias = Mapping[str, Mapping[str, object]]
NONE: Mapping[object, int] = MappingProxyType({})
PHOTOGRAPHS = (3, 224, 224)  # of many sizes


def _words(argument: str = "split", **words: str) -> Splits:
    return {split: {argument: word} for split, word in words.items()}


DIVIDED: Splits = {}  # into splits by convtrain
BY_FLAG: Splits = {"train": {"train": True}, "test": {"train": False}}
TRAIN_VAL = _words(train="train", val="val")
TRAIN_TEST = _words(train="train", test="test")
ALL_THREE = _words(train="train", val="val", test="test")
VALID = _words(train="train", val="valid", test="test")


class Row(NamedTuple):
    """A dataset of images that have one class each, or a number of labels."""

    classes: int | Mapping[object, int] | None  # number of classes, or by the value of ``by``
    splits: Splits  # arguments of each split
    shape: tuple[int, int, int] = PHOTOGRAPHS  # channels, height and width
    by: str = ""  # argument on which the classes depend; its first value is the default
    first: Mapping[object, int] = NONE  # label of the first class unless 0, by the value of ``by``
    needs: str = ""  # package that reads it
    multi_label: bool = False  # an image has any number of labels
    by_hand: str = ""  # folder of the files below data.root, if torchvision downloads none

    def defaults(self) -> dict[str, object]:
        """Return the argument on which the classes depend, with its default."""
        return {self.by: next(iter(self.classes))} if isinstance(self.classes, Mapping) else {}

    def class_count(self, arguments: Mapping[str, object]) -> int | None:
        """Return the number of classes; None if it must be typed, or an argument is wrong."""
        if not isinstance(self.classes, Mapping):
            return self.classes
        value = {**self.defaults(), **arguments}[self.by]
        return self.classes.get(value) if isinstance(value, str | bool) else None

    def first_label(self, arguments: Mapping[str, object]) -> int:
        return self.first.get({**self.defaults(), **arguments}.get(self.by), 0)


EMNIST: Mapping[object, int] = {
    "balanced": 47,
    "byclass": 62,
    "bymerge": 47,
    "letters": 26,
    "digits": 10,
    "mnist": 10,
}
GREY, COLOUR = (1, 28, 28), (3, 32, 32)
ROWS = {
    "CIFAR10": Row(10, BY_FLAG, COLOUR),
    "CIFAR100": Row(100, BY_FLAG, COLOUR),
    "CLEVRClassification": Row(8, TRAIN_VAL, first={None: 3}),  # 3 to 10 objects
    "Caltech101": Row(101, DIVIDED),
    "Caltech256": Row(257, DIVIDED),
    "CelebA": Row({"attr": 40}, VALID, (3, 218, 178), by="target_type", multi_label=True),
    "Country211": Row(211, VALID),
    "DTD": Row(47, ALL_THREE),
    "EMNIST": Row(EMNIST, BY_FLAG, GREY, by="split", first={"letters": 1}),
    "EuroSAT": Row(10, DIVIDED, (3, 64, 64)),
    "FER2013": Row(7, TRAIN_TEST, (1, 48, 48), by_hand="fer2013"),
    "FGVCAircraft": Row(
        {"variant": 100, "family": 70, "manufacturer": 30}, ALL_THREE, by="annotation_level"
    ),
    "FakeData": Row(None, DIVIDED),
    "FashionMNIST": Row(10, BY_FLAG, GREY),
    "Flowers102": Row(102, ALL_THREE, needs="scipy"),
    "Food101": Row(101, TRAIN_TEST),
    "GTSRB": Row(43, TRAIN_TEST, (3, 64, 64)),
    "INaturalist": Row(
        {"2021_train": 10_000, "2021_train_mini": 10_000},
        {
            "train": {"target_type": "full"},
            "val": {"target_type": "full", "version": "2021_valid"},
        },
        by="version",
    ),
    "ImageNet": Row(1000, TRAIN_VAL, needs="scipy", by_hand="."),
    "Imagenette": Row(10, TRAIN_VAL),
    "KMNIST": Row(10, BY_FLAG, GREY),
    "LSUN": Row(10, _words("classes", train="train", val="val"), needs="lmdb", by_hand="."),
    "MNIST": Row(10, BY_FLAG, GREY),
    "Omniglot": Row({True: 964, False: 659}, DIVIDED, (1, 105, 105), by="background"),
    "OxfordIIITPet": Row(
        {"category": 37, "binary-category": 2},
        _words(train="trainval", test="test"),
        by="target_types",
    ),
    "PCAM": Row(2, ALL_THREE, (3, 96, 96), needs="h5py"),
    "Places365": Row(365, _words(train="train-standard", val="val")),
    "QMNIST": Row(10, BY_FLAG, GREY),
    "RenderedSST2": Row(2, ALL_THREE),
    "SEMEION": Row(10, DIVIDED, (1, 16, 16)),
    "STL10": Row(10, TRAIN_TEST, (3, 96, 96)),
    "SUN397": Row(397, DIVIDED),
    "SVHN": Row(10, TRAIN_TEST, COLOUR, needs="scipy"),
    "StanfordCars": Row(196, TRAIN_TEST, needs="scipy", by_hand="stanford_cars"),
    "USPS": Row(10, BY_FLAG, (1, 16, 16)),
}

_OTHERS = {
    "CocoCaptions Flickr30k Flickr8k SBU": "captions",
    "CocoDetection Kitti SBDataset VOCDetection WIDERFace": "boxes or boundaries",
    "Cityscapes VOCSegmentation": "segmentations",
    "HMDB51 Kinetics MovingMNIST UCF101": "videos",
    "LFWPairs PhotoTour": "pairs to compare",
    "LFWPeople": "people to recognise, of whom most have one image",
    "FlyingChairs FlyingThings3D HD1K KittiFlow Sintel": "optical flow",
    "CREStereo CarlaStereo ETH3DStereo FallingThingsStereo InStereo2k Kitti2012Stereo "
    "Kitti2015Stereo Middlebury2014Stereo SceneFlowStereo SintelStereo": "stereo pairs",
}
OTHERS = {name: what for names, what in _OTHERS.items() for name in names.split()}
"""Datasets of torchvision that are no classification, and what they hold."""


def unknown(name: str) -> str | None:
    """Return why a name is not in the table, and what to type; None for a name that is."""
    if name in ROWS:
        return None
    if name in ("ImageFolder", "DatasetFolder"):
        return "reads a folder of your own; type data=image_folder data.root=FOLDER"
    if name in OTHERS:
        return f"is no classification of images: it has {OTHERS[name]}; choose from {few(ROWS, 99)}"
    near = closest(name, [*ROWS, *OTHERS])
    found = f"did you mean {near}?" if near else f"choose from {few(ROWS, 99)}"
    return f"is no classification dataset of torchvision; {found}"


def constructor(name: str) -> Callable[..., object]:
    """Return what makes a dataset of the table, with all arguments in its signature.

    ``**kwargs`` of EMNIST, QMNIST and ImageNet are replaced by the arguments of their base class.
    A ConfigError says that the installed torchvision is too old.
    """
    found = getattr(import_module("torchvision.datasets"), name, None)
    if not isinstance(found, type):
        raise ConfigError(
            f"data.name={name}: torchvision {metadata.version('torchvision')} does not have it; "
            f"pip install --upgrade torchvision"
        )
    own = dict(parameters_of(found) or {})
    passed_on = [key for key, each in own.items() if each.kind is each.VAR_KEYWORD]
    if not passed_on:
        return found
    del own[passed_on[0]]
    both = {**(parameters_of(found.__base__) or {}), **own}  # type: ignore[arg-type]

    def make(**arguments: object) -> object:
        return found(**arguments)

    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in both.values()]
    make.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    make.__name__ = name
    return make
