"""What is counted: how often a command is composed, validated and parsed before it trains."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

import convtrain.command.command_line
from convtrain.command import overrides
from convtrain.config.schema import Config
from convtrain.launch.command import run_command
from tests.conftest import compose

TYPED = ("trainer=cpu", "trainer.max_epochs=3", "network.prune={}", "hydra.output_subdir=null")


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counter[str]]:
    """Counts calls of Hydra's own functions and of pydantic's, which all others go through."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs" / "runs" / "convnet" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    plain = compose("trainer=cpu").model_dump(by_alias=True)
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    counted = Counter[str]()
    overrides._parsed.cache_clear()
    for owner, name in (
        (ConfigLoaderImpl, "_load_configuration_impl"),
        (OverridesParser, "parse_override"),
        (convtrain.command.command_line, "get_args_parser"),
    ):
        original = getattr(owner, name)

        def call(
            *args: object, _of: object = original, _name: str = name, **more: object
        ) -> object:
            counted[f"{_name} {args[1]}" if _name == "parse_override" else _name] += 1
            return _of(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, call)
    validate = Config.model_validate

    def validated(plain: object, **more: object) -> Config:
        counted["model_validate"] += 1
        return validate(plain, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Config, "model_validate", validated)

    def train(config: Config, *args: object, **more: object) -> None:
        counted["trained"] += 1
        counted["validated before"] = counted["model_validate"]
        raise SystemExit(0)

    monkeypatch.setattr("convtrain.launch.job.train", train)
    GlobalHydra.instance().clear()
    yield counted
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(arguments)
    assert not ended.value.code


def parsed(count: Counter[str], typed: list[str]) -> list[int]:
    return [count[f"parse_override {text}"] for text in typed]


def test_a_run_is_composed_validated_and_parsed_once(count: Counter[str]) -> None:
    run([*TYPED])
    assert count["trained"] == 1
    assert count["_load_configuration_impl"] == 1
    assert count["model_validate"] == 1
    assert count["get_args_parser"] == 1
    assert parsed(count, [*TYPED]) == [1] * len(TYPED)


def test_so_is_a_run_that_is_resumed(count: Counter[str]) -> None:
    typed = ["resume=logs/runs/convnet/a", "trainer.max_epochs=60"]
    run(typed)
    assert count["trained"] == 1
    assert count["_load_configuration_impl"] == 1
    assert count["model_validate"] == 1
    assert count["get_args_parser"] == 1
    assert parsed(count, typed) == [1, 1]


def test_to_find_the_run_what_was_typed_and_what_is_stored_are_validated(
    count: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["trainer=cpu", "trainer.max_epochs=60", "resume=auto"]
    run(typed)
    assert "resume=auto: resumes " in capsys.readouterr().err
    assert count["trained"] == 1
    assert count["_load_configuration_impl"] == 1
    assert count["model_validate"] == 3  # as typed, the candidate, and the resumed run
    assert count["get_args_parser"] == 1
    assert parsed(count, typed[:2]) == [1, 1]


def test_to_show_a_configuration_it_is_composed_and_parsed_once(
    count: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(["--cfg", "job", "seed=3"])
    assert "seed: 3" in capsys.readouterr().out
    assert count["_load_configuration_impl"] == 1
    assert count["model_validate"] == 0
    assert count["get_args_parser"] == 1
    assert parsed(count, ["seed=3"]) == [1]


@pytest.mark.usefixtures("count")
def test_what_is_shown_may_have_the_keys_of_the_schema_and_of_a_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = ("optimizer=custom", "optimizer._target_=torch.optim.ASGD", "optimizer.alpha=0.7")
    run_command(["--cfg", "job", *target, "optimizer.no_decay=[bias]"])
    assert "alpha: 0.7" in capsys.readouterr().out


@pytest.mark.usefixtures("count")
def test_what_is_shown_has_no_unknown_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(["--cfg", "job", "optimizer.lrr=3"])
    assert capsys.readouterr() == ("", "optimizer.lrr: no such key; did you mean optimizer.lr?\n")
