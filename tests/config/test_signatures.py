"""Arguments are bound to a signature without a call: unknown, missing, and of a wrong type."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from torchvision.transforms import v2

from convtrain.config.signatures import wrong_arguments


def takes_much(
    first: object,
    count: int,
    rate: float = 0.1,
    flag: bool = False,
    word: str = "a",
    shape: int | tuple[int, int] = 3,
    names: Sequence[str] | None = None,
    mode: Literal["min", "max"] = "min",
    tensor: torch.Tensor | float = 1.0,
    function: Callable[[int], int] | None = None,
    free: Any = None,
) -> None: ...


class Late:
    def __init__(self, count: "int", other: "Unknown" = None, **rest: object) -> None: ...  # type: ignore[name-defined] # noqa: F821


WRONG = {
    "nothing": ({"count": 1}, []),
    "whole is a number": ({"count": 1, "rate": 1}, []),
    "all": (
        {"count": 2, "shape": [3, 3], "names": ["a"], "mode": "max", "tensor": 2, "free": [1]},
        [],
    ),
    "default": ({"count": 1, "names": None, "function": None}, []),
    "missing": ({}, ["count: is missing (an argument of takes_much)"]),
    "unknown": (
        {"count": 1, "rat": 1},
        ["rat: takes_much has no such argument; did you mean rate?"],
    ),
    "given": ({"count": 1, "first": 1}, ["first: is given by convtrain; leave it out"]),
    "word": ({"count": "two"}, ["count: must be a whole number (an argument of takes_much)"]),
    "truth": ({"count": True}, ["count: must be a whole number (an argument of takes_much)"]),
    "fraction": ({"count": 1.5}, ["count: must be a whole number (an argument of takes_much)"]),
    "null": ({"count": 1, "rate": None}, ["rate: must be a number (an argument of takes_much)"]),
    "union": (
        {"count": 1, "shape": "3"},
        ["shape: must be a whole number or a list of 2: a whole number, a whole number (an "
         "argument of takes_much)"],
    ),
    "list": (
        {"count": 1, "names": "a"},
        ["names: must be a list, each a word or null (an argument of takes_much)"],
    ),
    "literal": (
        {"count": 1, "mode": "mean"},
        ["mode: must be one of min, max (an argument of takes_much)"],
    ),
    "tensor": (
        {"count": 1, "tensor": "x"},
        ["tensor: must be a number (an argument of takes_much)"],
    ),
    "function": (
        {"count": 1, "function": "abs"},
        ["function: must be a function, which a configuration cannot hold or null (an argument of "
         "takes_much)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "texts"), WRONG.values(), ids=WRONG)
def test_each_mistake_is_named(arguments: dict[str, Any], texts: list[str]) -> None:
    found = wrong_arguments(takes_much, arguments, positional=1)
    assert [f"{argument}: {text}" for argument, text in found] == texts


def test_an_annotation_that_cannot_be_resolved_accepts_everything() -> None:
    assert not list(wrong_arguments(Late, {"count": 1, "other": 3, "more": 4}))
    assert [argument for argument, _ in wrong_arguments(Late, {})] == ["count"]


GOOD = {
    torch.optim.AdamW: {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0},
    torch.optim.NAdam: {"lr": 1, "momentum_decay": 0.004},
    torch.optim.lr_scheduler.StepLR: {"step_size": 3},
    torch.nn.Conv2d: {
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": [3, 1],
        "padding": "same",
    },
    v2.RandomResizedCrop: {"size": 64, "scale": [0.5, 1], "interpolation": "bilinear"},
    v2.RandomErasing: {"p": 0.2, "value": [0.5, 0.5, 0.5]},
    v2.TrivialAugmentWide: {},
}


@pytest.mark.parametrize(
    ("called", "arguments"), GOOD.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_what_the_libraries_accept_is_not_refused(called: type, arguments: dict[str, Any]) -> None:
    is_optim = called.__module__.startswith("torch.optim")
    assert not list(wrong_arguments(called, arguments, positional=int(is_optim)))
