"""Every callback that Lightning ships: it fits, in both styles, or is refused with what to do."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch
from pytorch_lightning import callbacks

from convtrain.config.lightning_callbacks import (
    ALLOWED,
    AVERAGING,
    INHERITED,
    REFUSED,
    base_refusal,
)
from convtrain.config.targets import check_targets
from convtrain.errors import ConfigError
from convtrain.pipeline import train as run_train
from tests.conftest import REPOSITORY, Train, compose

SHIPPED = {
    name: found
    for module in pkgutil.walk_packages(callbacks.__path__, "pytorch_lightning.callbacks.")
    for name, found in vars(importlib.import_module(module.name)).items()
    if inspect.isclass(found)
    and issubclass(found, callbacks.Callback)
    and found.__module__ == module.name
}
ARGUMENTS = {"DeviceStatsMonitor": "cpu_stats: false", "Timer": "duration: '00:01:00:00'"}


def test_each_is_allowed_or_refused() -> None:
    assert set(SHIPPED) | set(callbacks.__all__) == {*ALLOWED, *REFUSED}
    assert not set(ALLOWED) & set(REFUSED)
    assert set(INHERITED) <= set(REFUSED)


@pytest.mark.parametrize("index_of_name", range(2), ids=["by its package", "by its module"])
def test_a_refused_one_is_a_line_that_says_what_to_do(index_of_name: int) -> None:
    names = [
        (f"pytorch_lightning.callbacks.{name}", f"{SHIPPED[name].__module__}.{name}")[index_of_name]
        for name in REFUSED
    ]
    listed = ",".join(f"{{_target_: {name}}}" for name in names)
    with pytest.raises(ConfigError) as raised:
        compose(f"callbacks.custom=[{listed}]")
    assert len(raised.value.lines) == len(REFUSED)
    for index, (name, line) in enumerate(zip(names, raised.value.lines, strict=True)):
        reason = REFUSED[name.rpartition(".")[2]]
        start = f"callbacks.custom.{index}._target_={name}: does not fit here: {reason}"
        assert line.startswith(start)


@pytest.mark.parametrize("name", INHERITED)
def test_a_class_derived_from_it_is_refused_too(name: str) -> None:
    derived = type("Mine", (SHIPPED[name],), {})
    assert f"is a {name}" in str(base_refusal(derived))


def test_a_callback_of_ones_own_is_welcome() -> None:
    assert base_refusal(type("Mine", (callbacks.Callback,), {})) is None
    assert base_refusal(type("Mine", (callbacks.EarlyStopping,), {})) is None


TIMER = "callbacks.custom=[{_target_: pytorch_lightning.callbacks.Timer, duraton: 1}]"


def test_arguments_are_bound_before_any_data_is_read() -> None:
    with pytest.raises(ConfigError) as raised:
        check_targets(compose(TIMER))
    assert str(raised.value).startswith(
        "callbacks.custom.0.duraton=1: Timer has no such argument; did you mean duration?"
    )


def test_the_page_lists_them() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    for name, reason in REFUSED.items():
        assert f"| `{name}` | {reason} |" in page
    for name in ALLOWED:
        assert f"`{name}`" in page


def test_those_that_are_allowed_change_no_bit(train: Train, tmp_path: Path) -> None:
    listed = ",".join(
        f"{{_target_: pytorch_lightning.callbacks.{name}, {ARGUMENTS.get(name, '')}}}"
        for name in ALLOWED
        if name not in AVERAGING
    ).replace(", }", "}")
    weights = []
    for style, more in (("nn", []), ("nn", [listed]), ("functional", [listed])):
        name = f"{style}{len(more)}"
        custom = f"callbacks.custom=[{','.join(more)}]"
        train(f"model={style}", custom, "trainer.limit_train_batches=3", name=name)
        weights.append(weights_of(tmp_path / name))
    bare, *others = weights
    assert all(same_bits(bare, other) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", AVERAGING)
def test_an_average_is_the_same_in_both_styles_and_after_a_resume(
    name: str, train: Train, tmp_path: Path
) -> None:
    custom = f"callbacks.custom=[{{_target_: pytorch_lightning.callbacks.{name}}}]"
    typed = [custom, "trainer.limit_train_batches=3", "scheduler=none"]
    whole = ["trainer.max_epochs=2", *typed]
    for style in ("nn", "functional"):
        train(f"model={style}", *whole, name=style)
    train("model=nn", "trainer.max_epochs=1", *typed, name="parts")
    resumed = [f"resume={tmp_path / 'parts'}", "trainer.max_epochs=2"]
    run_train(compose(*resumed), tmp_path / "parts", resumed)
    train("model=nn", "trainer.max_epochs=2", *typed[1:], name="bare")
    averaged = weights_of(tmp_path / "nn")
    assert same_bits(averaged, weights_of(tmp_path / "functional"))
    assert same_bits(averaged, weights_of(tmp_path / "parts"))
    assert not same_bits(averaged, weights_of(tmp_path / "bare"))


def weights_of(run: Path) -> list[torch.Tensor]:
    file = run / "checkpoints" / "last.ckpt"
    return list(torch.load(file, weights_only=True)["state_dict"].values())


def same_bits(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_weights_that_are_divided_are_not_averaged() -> None:
    custom = "callbacks.custom=[{_target_: pytorch_lightning.callbacks.EMAWeightAveraging}]"
    with pytest.raises(ConfigError, match=r"callbacks\.custom\.0.*divided over devices"):
        compose("trainer=fsdp", custom)
