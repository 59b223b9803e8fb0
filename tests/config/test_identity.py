"""Whether two configurations are the same training, and that everybody who asks is told the same.

The oracle is the table ``CASES``: what a user would say of the two commands.
"""

import functools
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from convtrain import pipeline
from convtrain.command.auto import choose_run
from convtrain.command.resume import refuse_resumed
from convtrain.config.identity import ROLES, differing, identity, role_of
from convtrain.config.schema import Config
from convtrain.errors import OccupiedError
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.jobs import JobSkippedError, train_unless_done
from convtrain.training.callbacks.rank_consistency import difference
from convtrain.use.compare import config_rows
from docs.generate.configuration import leaves
from tests.conftest import QUICK, compose

RESULT: Result = {"val/acc": 0.5}
CPU = "trainer=cpu"
SAME, LONGER, OTHER = "the same training", "the same run, resumed otherwise", "another run"
CASES = {
    "nothing": ([], [], SAME),
    "one device, said or not": ([], ["trainer.devices=1"], SAME),
    "two devices": (["trainer.devices=2"], ["trainer.devices=2"], SAME),
    "two devices, ddp said": (
        ["trainer.devices=2"], ["trainer.devices=2", "trainer.strategy=ddp"], SAME,
    ),
    "ddp on one device": ([], ["trainer.strategy=ddp"], SAME),
    "devices=auto": (
        ["trainer=ddp_cpu", "trainer.devices=auto"], ["trainer=ddp_cpu", "trainer.devices=auto"],
        SAME,
    ),
    "devices=auto and a number": (
        ["trainer=ddp_cpu", "trainer.devices=auto"], ["trainer=ddp_cpu", "trainer.devices=2"],
        LONGER,
    ),
    "other devices": (["trainer.devices=2"], ["trainer.devices=3"], LONGER),
    "other machines": ([], ["trainer.num_nodes=2"], LONGER),
    "fsdp": (["trainer=fsdp"], ["trainer=fsdp", "trainer.strategy=ddp"], OTHER),
    "accelerator": ([], ["trainer.accelerator=auto"], LONGER),
    "threads": ([], ["trainer.threads=2"], LONGER),
    "longer": ([], ["trainer.max_epochs=99"], LONGER),
    "more steps": (["trainer.max_steps=5"], ["trainer.max_steps=9"], LONGER),
    "checkpoints": ([], ["callbacks.checkpoint.every_n_steps=3"], LONGER),
    "data elsewhere": ([], ["data.root=elsewhere"], LONGER),
    "progress bar": ([], ["callbacks.progress_bar=false"], SAME),
    "download": ([], ["data.download=true"], SAME),
    "sweep": ([], ["sweep.metric=val/loss", "sweep.retry_failed=true"], SAME),
    "trust": ([], ["trust=[mine]"], SAME),
    "precision": (["trainer.precision=32"], ["trainer.precision=32-true"], SAME),
    "whole number": (["optimizer.lr=1"], ["optimizer.lr=1.0"], SAME),
    "seed": ([], ["seed=2"], OTHER),
    "learning rate": ([], ["optimizer.lr=0.3"], OTHER),
    "batch size": ([], ["data.batch_size=32"], OTHER),
    "style": ([], ["model=nn"], OTHER),
    "network": ([], ["network=lstm"], OTHER),
    "optimizer": ([], ["optimizer=adamw"], OTHER),
    "recorder": ([], ["recorder=off"], OTHER),
}  # fmt: skip


composed = functools.cache(compose)


def asked_for(*overrides: str) -> Config:
    """Return what a command asks for; keys of one value are set without composing again."""
    groups = [text for text in overrides if "." not in text.partition("=")[0]]
    plain = composed(CPU, *groups).model_dump(by_alias=True)
    for key, _, value in (text.partition("=") for text in overrides if text not in groups):
        *path, last = key.split(".")
        section = plain
        for name in path:
            section = section[name]
        section[last] = yaml.safe_load(value)
    return Config.model_validate(plain)


def leave(folder: Path, config: Config, **launched: Any) -> Run:
    """Write what a finished run of a configuration leaves behind."""
    run = Run(folder)
    run.checkpoints.mkdir(parents=True)
    run.begin(config, [], {"launched": launched})
    run.last_checkpoint.touch()
    run.finish(RESULT)
    return run


def test_the_table_of_keys_names_keys_that_exist() -> None:
    keys = {key for key, _, _ in leaves(Config)}
    for key in ROLES:
        is_argument = f"{key.rpartition('.')[0]}._target_" in keys  # of a class of the user's
        assert is_argument or any(f"{known}.".startswith(f"{key}.") for known in keys), key
    assert role_of("trainer.max_epochs_of_mine") is None
    assert role_of("sweep.metric") is not None


@pytest.mark.parametrize("name", CASES)
def test_two_commands_are_what_a_user_would_say(name: str) -> None:
    first, second, expected = CASES[name]
    a, b = asked_for(*first), asked_for(*second)
    found = (not differing(a, b), not differing(a, b, resumed=True))
    assert found == {SAME: (True, True), LONGER: (False, True), OTHER: (False, False)}[expected]


@pytest.mark.parametrize("name", CASES)
def test_all_who_ask_are_told_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep, ``diff``, the ranks, ``resume=auto`` and Python's door, each from the files."""
    first, second, expected = CASES[name]
    asked = asked_for(*second)
    monkeypatch.chdir(tmp_path)
    run = leave(Path("logs/runs/convnet/a"), asked_for(*first), devices=2, strategy="ddp")

    def never(*_: Any) -> NoReturn:
        raise AssertionError("it is trained again")

    try:
        skipped = train_unless_done(never, asked, run.path, [], Signals()) == RESULT
    except JobSkippedError:
        skipped = False
    assert skipped == (expected == SAME)

    assert (not list(config_rows(run, leave(Path("b"), asked)))) == (expected == SAME)

    ranks = [identity(run.read_config()), identity(asked)]
    facts = [{"configuration": json.dumps(each)} for each in ranks]
    assert (difference(facts, ranks) is None) == (expected == SAME)

    run.result.unlink()
    assert choose_run(asked, []) == (None if expected == OTHER else run.path)

    resuming = asked.model_copy(update={"resume": str(run.path)})
    if expected == OTHER:
        with pytest.raises(OccupiedError, match="is a run with another "):
            refuse_resumed(resuming, run)
    else:
        refuse_resumed(resuming, run)


@pytest.mark.parametrize("devices", ["2", "auto"])
def test_a_run_of_an_older_version_holds_what_was_launched(tmp_path: Path, devices: str) -> None:
    launched = asked_for("trainer=ddp_cpu", "trainer.devices=2", "trainer.strategy=ddp")
    run = leave(tmp_path, launched)
    asked = asked_for("trainer=ddp_cpu", f"trainer.devices={devices}")
    assert run.same_as(asked) == (devices == "2")
    run.provenance.write_text(json.dumps({"python": "3.11"}))
    assert run.same_as(asked)
    assert not run.same_as(asked_for("trainer=ddp_cpu", "trainer.devices=3"))


def test_a_key_that_an_older_run_lacks_has_its_default(tmp_path: Path) -> None:
    run = leave(tmp_path, asked_for())
    stored = run.read_config()
    del stored["sweep"], stored["network"]["prune"]
    run.config.write_text(yaml.safe_dump(stored))
    assert run.same_as(asked_for())


def test_a_run_stores_what_was_asked_and_beside_it_what_was_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(config: Config) -> Config:
        """Stand for torchrun, which has told of other devices."""
        changes = {"num_nodes": 1, "strategy": "ddp", "threads": 1}
        return config.model_copy(update={"trainer": config.trainer.model_copy(update=changes)})

    monkeypatch.setattr(pipeline, "as_launched", launch)
    asked = compose(*QUICK, "data.limit=64", "logger=none", "recorder=off", "network=lstm")
    pipeline.train(asked, tmp_path)
    run = Run(tmp_path)
    assert run.read_config() == asked.model_dump(by_alias=True)
    expected = {"devices": 1, "num_nodes": 1, "strategy": "ddp"}
    assert run.read_provenance()["launched"] == expected
