"""``_target_`` is code: only what is allowed is named, wherever it stands, and nothing is run."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from convtrain.config.check import check_command, resolve_config
from convtrain.config.command_line import CommandLine
from convtrain.config.compose import compose_leniently
from convtrain.config.targets import refusal, untrustworthy
from convtrain.errors import ConfigError
from tests.conftest import REPOSITORY

DANGEROUS = (
    "os.system", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen",
    "torch.utils.cpp_extension.load",
)  # fmt: skip


def refused(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        check_command(CommandLine(overrides=list(overrides)))
    return list(raised.value.lines)


def plain_config(*overrides: str) -> dict:
    from omegaconf import OmegaConf

    (composed,) = compose_leniently(CommandLine(overrides=list(overrides)))
    plain = OmegaConf.to_container(composed.config)
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize("trust", [[], ["{root}"], ["{root}.{rest}"]], ids=str)
@pytest.mark.parametrize("target", DANGEROUS)
def test_what_runs_code_is_refused_whoever_trusts_it(target: str, trust: list[str]) -> None:
    root, rest = target.split(".", maxsplit=1)
    named = [name.format(root=root, rest=rest.rpartition(".")[0] or rest) for name in trust]
    assert refusal(target, named) is not None
    lines = refused("model=custom", f"model._target_={target}", f"trust={named}".replace("'", ""))
    assert any(line.startswith(f"model._target_={target}: not allowed") for line in lines)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["model=custom", "model._target_=torch.nn.Identity", "+model.a.b=[{_target_: os.system}]"],
         "model.a.b.0._target_"),
        (["callbacks.custom=[{_target_: os.system, _partial_: true}]"],
         "callbacks.custom.0._target_"),
        (["callbacks.custom=[{_target_: torch.nn.Identity, x: {_target_: os.abort}}]"],
         "callbacks.custom.0.x._target_"),
        (["network.layers=[{Linear: {out_features: {_target_: os.system}}}]"],
         "network.layers.0.Linear.out_features._target_"),
        (["model=custom", "model._target_=${resume}", "resume=null"], "model._target_"),
        (["model=custom", "model._target_=${data.root}", "data.root=os.system"], "model._target_"),
        (["callbacks.custom=[{_target_: '${data.root}'}]", "data.root=os.system"],
         "callbacks.custom.0._target_"),
        (["callbacks.custom=[{_target_: [os, system]}]"], "callbacks.custom.0._target_"),
        (["++network.init={x: {_target_: os.system}}"], "network.init.x._target_"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_target_is_found_wherever_it_stands(overrides: list[str], key: str) -> None:
    assert any(line.startswith(f"{key}=") for line in refused(*overrides))


HYDRA = {
    "launcher": ["hydra.launcher._target_=os.system"],
    "sweeper": ["hydra.sweeper._target_=subprocess.Popen"],
    "callback": ["+hydra.callbacks.x={_target_: os.system, command: id}"],
    "callback made by a resolver": [
        "+hydra.callbacks.x=\"${oc.decode:'{_target_: os.system}'}\""],
    "callback that is interpolated": ["+hydra.callbacks.x={_target_: '${data.root}'}",
                                      "data.root=os.system"],
    "prefix with an interpolation": ["+hydra.callbacks.x={_target_: 'hydra_plugins.${data.root}'}"],
    "logging class": ["+hydra.job_logging.handlers.x={class: subprocess.Popen, args: [id]}"],
    "logging attribute": ["hydra.job_logging.handlers.console.stream=ext://os.environ"],
    "logging node": ["hydra.job_logging.handlers='${network.init}'"],
    "environment": ["+hydra.job.env_set.LD_PRELOAD=/tmp/evil.so"],
    "package on the search path": ["hydra.searchpath=[pkg://this]"],
}  # fmt: skip


@pytest.mark.parametrize("overrides", HYDRA.values(), ids=HYDRA.keys())
def test_hydra_is_given_no_code_to_run(overrides: list[str]) -> None:
    assert "this" not in sys.modules
    assert any(line.startswith("hydra.") for line in refused(*overrides))
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "override",
    ["hydra/launcher=joblib", "hydra/job_logging=disabled", "hydra/hydra_logging=default",
     "hydra/job_logging=stdout", "+hydra.job.env_set.OMP_NUM_THREADS=1", "hydra.verbose=true",
     "hydra.sweep.subdir=${hydra.job.override_dirname}", "hydra.output_subdir=null"],
)  # fmt: skip
def test_hydras_own_choices_are_welcome(override: str) -> None:
    check_command(CommandLine(overrides=[override]))


@pytest.mark.parametrize(
    ("target", "trust"),
    [
        ("torch.nn.Identity", []),
        ("pytorch_lightning.callbacks.LearningRateMonitor", []),
        ("mine.Net", ["mine"]),
        ("mine.models.Net", ["mine.models"]),
    ],
)
def test_torchs_modules_lightnings_callbacks_and_ones_own_are_allowed(
    target: str, trust: list[str]
) -> None:
    assert refusal(target, trust) is None


@pytest.mark.parametrize(
    "target", ["mine.Net", "mines.Net", "mine", "mine..Net", "mine.Net()", ".mine.Net", "mine.a b"]
)
def test_what_is_not_named_is_not_trusted(target: str) -> None:
    assert refusal(target, ["mine.models", "min"]) is not None


def test_every_module_of_python_is_beyond_trust() -> None:
    trusted = [name for name in sys.stdlib_module_names if untrustworthy(name) is None]
    assert not trusted


def test_nothing_is_imported_or_run(tmp_path: Path) -> None:
    """In a process of its own, with a package on the path that leaves a mark if it is imported."""
    mark = tmp_path / "mark"
    (tmp_path / "marking.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    targets = [*DANGEROUS, "marking.Net"]
    callbacks = [{"_target_": target, "args": ["touch", str(mark)]} for target in targets]
    folder = tmp_path / "experiment"
    folder.mkdir()
    logging = {"formatters": {"x": {"()": "os.system", "command": f"touch {mark}"}}}
    evil = {"callbacks": {"custom": callbacks}, "hydra": {"job_logging": logging}}
    (folder / "evil.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(evil)}")
    done = subprocess.run(
        [sys.executable, "train.py", "--config-dir", str(tmp_path), "experiment=evil",
         "hydra.launcher._target_=os.system", f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=REPOSITORY, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == len(targets) + 2
    assert "hydra.job_logging.formatters.x.()=os.system" in done.stderr
    assert "marking.Net: not a trusted package; add 'trust=[marking]'" in done.stderr
    assert "experiment/evil.yaml" in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_a_stored_configuration_is_not_trusted_either(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    stored = plain_config("network=conv2d")
    stored["callbacks"]["custom"] = [{"_target_": "os.system", "command": "id"}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    (line,) = refused(f"resume={tmp_path}")
    assert line.startswith("callbacks.custom.0._target_=os.system: not allowed")
    assert f"{tmp_path}/config.yaml" in line


BROKEN = {
    "bomb": "a: &a [1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1 if n else str()}'] * 9)}]\n" for n in range(12)
    ),
    "object": "seed: !!python/object/apply:os.system [id]\n",
    "list": "- 1\n",
    "empty": "",
    "not closed": "seed: [1\n",
    "deep": f"seed: {'[' * 3000}{']' * 3000}\n",
}  # fmt: skip


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_stored_configuration_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "config.yaml").write_text(text)
    lines = refused(f"resume={tmp_path}")
    assert all(f"{tmp_path}/config.yaml" in line for line in lines)


def test_interpolations_cannot_unfold_without_end() -> None:
    from omegaconf import OmegaConf

    plain = plain_config("network=conv2d")
    plain["network"]["init"] = {"a0": [1] * 9} | {
        f"a{n}": [f"${{network.init.a{n - 1}}}"] * 9 for n in range(1, 9)
    }
    with pytest.raises(ConfigError, match="unfold into more than"):
        resolve_config(OmegaConf.create(plain))
