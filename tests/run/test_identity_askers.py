"""Whoever asks whether two configurations are the same training gets the same answer.

A pair of configurations differs in one key of the schema. No asker is the oracle of another: what
is tested is that they agree, so that a job that the sweep skips is one that ``diff`` calls equal,
and a run that ``resume=auto`` finds is one that may be resumed.
"""

import functools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from convtrain.command.auto import choose_run
from convtrain.command.compose import CONFIGS
from convtrain.command.resume import read_config, refuse_resumed, stored_config
from convtrain.config.groups.data import ImageFolder
from convtrain.config.identity import ROLES, digest, leaves, role_of
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, OccupiedError
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.jobs import JobSkippedError, train_unless_done
from convtrain.text import as_hydra_value
from convtrain.use.compare import config_rows
from tests.conftest import compose

PAIRS = 64
OF_OTHER_DATA = {
    **{f"data.{split}.root": "data.root" for split in ("train", "val", "test")},
    "data.read_workers": "data.memory_gib",
    "data.file": "data.root",
    "data.decode": "data.cache_dir",
}
"""Keys that the pairs have not, to keys of the same role that they have."""
CHOICES = (
    "trainer=cpu", "data=synthetic", "optimizer=adamw", "scheduler=onecycle", "recorder=debug",
    "augment=crop_flip_cutout", "network=lenet", "callbacks.early_stopping.patience=3",
)  # fmt: skip


def plain(config: Config) -> Any:
    return config.model_dump(by_alias=True)


class Pair(NamedTuple):
    key: str
    first: Config
    second: Config


def other_values(value: object) -> Iterator[object]:
    """Yield values of which the schema is likely to allow one in the place of ``value``."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value / 2, value * 2, 0)
    elif isinstance(value, list):
        yield from (value[::-1], [item * 2 for item in value if isinstance(item, int | float)])
        yield from (value[1:], ["other"])
    else:
        yield from (
            3, 0.5, True, "other", "auto", "cpu", "gpu", "min", "max", "linear", "cosine",
            "norm", "value", "16-mixed", "fsdp", "ddp", "val/acc", "val/loss", "nearest", "nn",
            "1", ["other"], {"*.bias": "zeros"}, {"f1": {"_target_": "torchmetrics.F1Score"}},
            "/elsewhere", "record", "stop", "off",
        )  # fmt: skip


@functools.cache
def pairs() -> list[Pair]:
    """Return pairs with every key of another role than identity, and as many others as fit."""
    declared = plain(compose(*CHOICES))
    for name in ("_base", "image_folder"):  # which is not composed where there are no images
        declared["data"] |= yaml.safe_load((CONFIGS / "data" / f"{name}.yaml").read_text())
    declared["data"] = {k: v for k, v in declared["data"].items() if k in ImageFolder.model_fields}
    first = Config.model_validate(declared)
    found = []
    for key, value in leaves(plain(first)):
        *path, last = key.split(".")
        for other in other_values(value):
            changed = plain(first)
            section = changed
            for name in path:
                section = section[name]
            section[last] = other
            try:
                second = Config.model_validate(changed)
            except (ValidationError, ConfigError):
                continue
            if second != first:
                found.append(Pair(key, first, second))
                break
    found.sort(key=lambda pair: role_of(pair.key) is None)
    special = sum(role_of(pair.key) is not None for pair in found)
    rest = found[special:]
    step = max(len(rest) // (PAIRS - special), 1)
    return [*found[:special], *rest[::step]][:PAIRS]


def leave(folder: Path, config: Config) -> Run:
    """Write what a finished run leaves behind."""
    run = Run(folder)
    run.checkpoints.mkdir(parents=True)
    run.begin(config, [], {"launched": {}})
    run.last_checkpoint.touch()
    run.finish({"val/acc": 0.5})
    return run


@pytest.fixture(autouse=True)
def _fast_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and write the same YAML by libyaml, if it is here: each pair has ten files."""
    if yaml.__with_libyaml__:
        monkeypatch.setattr(yaml, "safe_load", partial(yaml.load, Loader=yaml.CSafeLoader))
        monkeypatch.setattr(yaml, "safe_dump", partial(yaml.dump, Dumper=yaml.CSafeDumper))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory whose one run is of the first configuration of every pair."""
    folder = tmp_path_factory.mktemp("work")
    leave(folder / "logs/runs/net/first", pairs()[0].first)
    return folder


def test_the_pairs_are_many_and_of_every_role() -> None:
    keys = [pair.key for pair in pairs()]
    assert len(set(keys)) == PAIRS
    for key in ROLES:
        same = OF_OTHER_DATA.get(key, key)
        assert role_of(key) == role_of(same)
        assert any(f"{known}.".startswith(f"{same}.") for known in keys), key
    assert sum(role_of(key) is None for key in keys) > PAIRS // 2


def is_skipped_by_a_sweep(run: Run, config: Config) -> bool:
    """Tell whether a sweep takes the run's result for a job of the configuration."""

    def never(*_: object) -> Result:
        raise AssertionError("it would be trained again")

    try:
        return train_unless_done(never, config, run.path, [], Signals()) == run.read_result()
    except JobSkippedError:
        return False


def may_be_resumed(run: Run, config: Config) -> bool:
    try:
        refuse_resumed(config.model_copy(update={"resume": str(run.path)}), run)
    except OccupiedError:
        return False
    return True


def may_be_typed_on_resume(run: Run, key: str, value: object) -> bool:
    try:
        stored_config(str(run.path), [f"++{key}={as_hydra_value(str(value))}"])
    except ConfigError as error:
        if "cannot change when a run is resumed" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("index", range(PAIRS), ids=lambda index: pairs()[index].key)
def test_all_who_ask_agree(
    index: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs()[index]
    monkeypatch.chdir(folder)
    first, second = Run("logs/runs/net/first"), leave(tmp_path / "second", pair.second)
    value = functools.reduce(lambda node, key: node[key], pair.key.split("."), plain(pair.second))

    stored: Any = OmegaConf.to_container(read_config(second))
    same = {
        "Run": first.same_as(pair.second),
        "hash": digest(pair.first) == digest(pair.second),
        "sweep": is_skipped_by_a_sweep(first, pair.second),
        "diff": not list(config_rows(first, second)),
        "rerun": first.same_as(stored),
    }
    assert len(set(same.values())) == 1, same
    result = first.result.rename(tmp_path / "result.json")
    try:
        resumable = {
            "Run": first.same_as(pair.second, resumed=True),
            "resume": may_be_resumed(first, pair.second),
            "resume, typed": may_be_typed_on_resume(first, pair.key, value),
            "resume=auto": choose_run(pair.second, []) is not None,
        }
    finally:
        result.rename(first.result)
    assert len(set(resumable.values())) == 1, resumable
    assert resumable["Run"] or not same["Run"]
