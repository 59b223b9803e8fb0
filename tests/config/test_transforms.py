"""The declared list of transforms: each mistake is one line that says what to write."""

import pytest

from convtrain.config.transforms import REFUSED, make_transforms, usable_names
from convtrain.errors import ConfigError
from tests.conftest import REPOSITORY

WRONG: dict[str, tuple[object, str]] = {
    "misspelt": (
        "RandomErase",
        "=RandomErase: torchvision.transforms.v2 has no transform RandomErase; did you mean "
        "RandomErasing?",
    ),
    "unknown argument": (
        {"RandomErasing": {"prob": 1}},
        ".RandomErasing.prob=1: RandomErasing has no such argument; it takes p, scale, ratio, "
        "value, inplace",
    ),
    "misspelt argument": (
        {"RandomErasing": {"scal": [0.1, 0.2]}},
        ".RandomErasing.scal=[0.1, 0.2]: RandomErasing has no such argument; did you mean scale?",
    ),
    "missing argument": ("RandomResizedCrop", ".size: is missing (an argument of RandomResized"),
    "torchvision's own words": (
        {"RandomErasing": {"p": 2}},
        ".RandomErasing={p: 2}: `p` should be a floating point value in the interval [0.0, 1.0].",
    ),
    "not a number": ({"RandomErasing": {"p": "often"}}, ".p=often: must be a number (an argument"),
    "a word of an enumeration": (
        {"Resize": {"size": 8, "interpolation": "bilinea"}},
        ".Resize.interpolation=bilinea: no such interpolation; did you mean bilinear?",
    ),
    "a dtype": ({"ToDtype": {"dtype": "torch.float31"}}, "no such dtype; did you mean torch.float"),
    "inside": (
        {"RandomApply": {"transforms": ["RandomHorizontalFlip", "Posterize"]}},
        ".RandomApply.transforms.1=Posterize: torchvision.transforms.v2 has no transform "
        "Posterize; did you mean RandomPosterize?",
    ),
    "no list inside": ({"RandomOrder": {"transforms": 3}}, "transforms=3: must be a list"),
    "two names": ({"Pad": {}, "Resize": {}}, "write a name, or one name with its arguments"),
    "a _target_": ({"_target_": "mine.Mine"}, "write a name, or one name with its arguments"),
    "a bare value": (
        {"RandomErasing": 0.2},
        ".RandomErasing=0.2: arguments are given by name, as {RandomErasing: {argument: value}}",
    ),
    "not trusted": ("mine.Mine", "=mine.Mine: not a trusted package; add 'trust=[mine]'"),
    "the first transforms": (
        {"torchvision.transforms.RandomCrop": {"size": 8}},
        "not allowed: torchvision is a library",
    ),
    "no transform": ("torchvision.transforms.v2.functional.pad", "expected a class derived from"),
    "a function": ("Lambda", "Lambda takes a function, which a configuration cannot hold"),
    "by its path": ("torchvision.transforms.v2.Lambda", "Lambda takes a function"),
    "inside the package": ("torchvision.transforms.v2._misc.Normalize", "set data.mean and"),
}


@pytest.mark.parametrize(("entry", "expected"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line(entry: object, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_transforms(["RandomHorizontalFlip", entry], ())
    (line,) = error.value.lines
    assert line.startswith("augment.transforms.1")
    assert expected in line


def test_the_page_on_data_says_what_to_do_instead_of_each_refused_class() -> None:
    text = (REPOSITORY / "docs" / "data.md").read_text()
    assert [name for name in REFUSED if f"`{name}`" not in text] == []


SIZED = ("CenterCrop", "RandomCrop", "RandomResizedCrop", "Resize")


def test_all_mistakes_are_found_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        make_transforms(["Flip", {"Resize": {"sise": 8}}, {"RandomOrder": ["A", "Lambda"]}], ())
    assert len(error.value.lines) == 5


def test_every_class_of_torchvision_that_is_not_refused_can_be_made() -> None:
    """A class that a later torchvision adds must be made from plain values, or be refused."""
    needed = {
        "ColorJitter": {"hue": 0.1}, "ConvertImageDtype": {}, "GaussianBlur": {"kernel_size": 3},
        "RandomAffine": {"degrees": 5}, "RandomRotation": {"degrees": 5}, "Pad": {"padding": 1},
        "RandomAdjustSharpness": {"sharpness_factor": 2}, "RandomPosterize": {"bits": 3},
        "RandomResize": {"min_size": 8, "max_size": 9}, "RandomSolarize": {"threshold": 9},
        "RandomShortestSize": {"min_size": 8}, "ScaleJitter": {"target_size": [8, 8]},
        "JPEG": {"quality": [40, 90]}, "ToDtype": {"dtype": "torch.uint8"},
        "AutoAugment": {"policy": "cifar10"}, "ElasticTransform": {"alpha": 5},
        **{name: {"size": 8} for name in SIZED},
        **{n: ["Identity"] for n in ("Compose", "RandomApply", "RandomChoice", "RandomOrder")},
    }  # fmt: skip
    made = make_transforms([{name: needed.get(name, {})} for name in usable_names()], ())
    assert [type(each.transform).__name__ for each in made] == usable_names()
