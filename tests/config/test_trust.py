"""``_target_`` is code: only what is allowed is named, wherever it stands, and nothing is run."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.command.configure import configure_command
from convtrain.command.job_config import resolve_config
from convtrain.config.check import validate
from convtrain.config.trust import CALLBACK, MODULE, refusal, untrustworthy
from convtrain.errors import ConfigError
from tests.conftest import REPOSITORY

DANGEROUS = (
    "os.system", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen",
    "torch.utils.cpp_extension.load",
)  # fmt: skip


def refused(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        configure_command(CommandLine(overrides=list(overrides)))
    return list(raised.value.lines)


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    (found,) = compose_command(CommandLine(overrides=["network=conv2d"]))
    plain = OmegaConf.to_container(found.config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.fixture
def plain(composed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(composed)


@pytest.mark.parametrize("trust", [[], ["{root}"], ["{root}.{rest}"]], ids=str)
@pytest.mark.parametrize("target", DANGEROUS)
def test_what_runs_code_is_refused_whoever_trusts_it(
    plain: dict[str, Any], target: str, trust: list[str]
) -> None:
    root, rest = target.split(".", maxsplit=1)
    named = [name.format(root=root, rest=rest.rpartition(".")[0] or rest) for name in trust]
    assert refusal(target, named, MODULE) is not None
    changed = {**plain, "trust": named, "model": {"style": "custom", "_target_": target}}
    with pytest.raises(ConfigError, match=rf"model\._target_={target}: not allowed"):
        validate(changed)


HIDDEN: dict[str, tuple[str, Any]] = {
    "nested in a model's arguments": ("model.a.b", [{"_target_": "os.system"}]),
    "partial": ("callbacks.custom", [{"_target_": "os.system", "_partial_": True}]),
    "in a callback that is allowed": (
        "callbacks.custom",
        [{"_target_": "pytorch_lightning.callbacks.Timer", "x": {"_target_": "os.abort"}}],
    ),
    "in a layer": ("network.layers", [{"Linear": {"out_features": {"_target_": "os.system"}}}]),
    "in initial weights": ("network.init", {"*": {"_target_": "os.system"}}),
    "through an interpolation": ("callbacks.custom", [{"_target_": "${data.root}"}]),
    "made by a resolver": ("callbacks.custom", ["${oc.decode:'{_target_: os.system}'}"]),
    "through an interpolated section": ("callbacks.custom", ["${network.blocks}"]),
    "not even a name": ("callbacks.custom", [{"_target_": ["os", "system"]}]),
    "nothing": ("callbacks.custom", [{"_target_": None}]),
}


@pytest.mark.parametrize(("key", "value"), HIDDEN.values(), ids=HIDDEN.keys())
def test_a_target_is_found_wherever_it_stands(plain: dict[str, Any], key: str, value: Any) -> None:
    plain["model"] = {"style": "custom", "_target_": "torch.nn.Identity", "a": {}}
    plain["data"]["root"] = "os.system"
    plain["network"]["blocks"] = {"_target_": "os.system"}
    resolve_config_refuses(plain, "network.blocks._target_=os.system")
    plain["network"]["blocks"] = {}
    if value == ["${network.blocks}"]:
        plain["network"]["blocks"] = {"_target_": "os.system"}
    *path, leaf = key.split(".")
    node = plain
    for part in path:
        node = node[part]
    node[leaf] = value
    resolve_config_refuses(plain, f"{key}.")


LAYERS = {
    "network.layers.0": [{"absent.Layer": {"by": 2}}],
    "network.layers.1": ["Flatten", "absent.Layer"],
    "network.layers.0.Residual.body.0.1": [{"Residual": {"body": [["ReLU", "absent.Layer"]]}}],
    "network.layers.0.Repeat.layers.0": [{"Repeat": {"times": 0, "layers": ["absent.Layer"]}}],
    "network.layers.0.mine.inside.0": [{"mine": {"inside": ["absent.Layer"]}, "name": "x"}],
}


@pytest.mark.parametrize(("key", "layers"), LAYERS.items(), ids=LAYERS)
def test_a_layer_of_ones_own_is_found_wherever_it_stands(
    plain: dict[str, Any], key: str, layers: list[Any]
) -> None:
    plain["network"]["layers"] = layers
    with pytest.raises(ConfigError, match=rf"^{key}=.*: not a trusted package; add 'trust=\[abs"):
        validate(plain)
    in_blocks = {"mine": {"takes": {"inside": layers}, "layers": layers}}
    plain["network"] |= {"layers": ["mine"], "blocks": in_blocks}
    with pytest.raises(ConfigError) as raised:
        validate(plain)
    ends = [f"takes.inside{key.removeprefix('network.layers')}", key.removeprefix("network.")]
    found = [line.split("=")[0].removeprefix("network.blocks.mine.") for line in raised.value.lines]
    assert found == ends
    plain["trust"] = ["absent"]
    validate(plain)  # imports nothing


def test_data_in_a_layer_of_ones_own_is_no_layer(plain: dict[str, Any]) -> None:
    plain["network"]["layers"] = [{"absent.Layer": {"files": ["a.b"], "body": ["c.d"]}}]
    plain["trust"] = ["absent"]
    validate(plain)


def resolve_config_refuses(plain: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve_config(OmegaConf.create(plain))
    assert any(
        line.startswith(start) and "_target_=" in line.split(":")[0] for line in raised.value.lines
    ), raised.value


HYDRA = {
    "hydra.launcher._target_": "hydra.launcher._target_=os.system",
    "hydra.sweeper._target_": "hydra.sweeper._target_=subprocess.Popen",
    "hydra.callbacks.a._target_": "+hydra.callbacks.a={_target_: os.system, command: id}",
    "hydra.callbacks.b._target_": "+hydra.callbacks.b=\"${oc.decode:'{_target_: os.system}'}\"",
    "hydra.callbacks.c._target_": "+hydra.callbacks.c={_target_: '${data.root}'}",
    "hydra.callbacks.d._target_": "+hydra.callbacks.d={_target_: 'hydra_plugins.${data.root}'}",
    "hydra.job_logging.handlers.x.class":
        "+hydra.job_logging.handlers.x={class: subprocess.Popen, args: [id]}",
    "hydra.job_logging.handlers.file.filename":
        "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/../x'",
    "hydra.job_logging.handlers.console.stream":
        "hydra.job_logging.handlers.console.stream=ext://os.environ",
    "hydra.job.env_set.LD_PRELOAD": "+hydra.job.env_set.LD_PRELOAD=/tmp/evil.so",
}  # fmt: skip


def test_hydra_is_given_no_code_to_run() -> None:
    reported = {line.split("=")[0] for line in refused(*HYDRA.values())}
    assert reported == set(HYDRA)


def test_no_package_is_searched_for_files() -> None:
    assert "this" not in sys.modules
    (line,) = refused("hydra.searchpath=[pkg://this]")
    assert line.startswith("hydra.searchpath.0=pkg://this: would import a package")
    assert "this" not in sys.modules


def test_hydras_own_choices_are_welcome() -> None:
    configure_command(CommandLine(overrides=[
        "hydra/launcher=joblib", "hydra/job_logging=default", "hydra/hydra_logging=default",
        "+hydra.job.env_set.OMP_NUM_THREADS=1", "hydra.verbose=true", "hydra.output_subdir=null",
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
    ]))  # fmt: skip


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
    assert refusal(target, trust, MODULE, CALLBACK) is None


@pytest.mark.parametrize(
    "target", ["mine.Net", "mines.Net", "mine", "mine..Net", "mine.Net()", ".mine.Net", "mine.a b"]
)
def test_what_is_not_named_is_not_trusted(target: str) -> None:
    assert refusal(target, ["mine.models", "min"], MODULE) is not None


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


def test_what_is_only_shown_is_guarded_too(tmp_path: Path) -> None:
    """Hydra sets up its logging before it shows anything."""
    (tmp_path / "experiment").mkdir()
    evil = {"hydra": {"hydra_logging": {"version": 1, "formatters": {"x": {"()": "torch.load"}}}}}
    file = tmp_path / "experiment" / "evil.yaml"
    file.write_text(f"# @package _global_\n{yaml.safe_dump(evil)}")
    done = subprocess.run(
        [sys.executable, "train.py", "--cfg", "job", "--config-dir", str(tmp_path),
         "experiment=evil"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("hydra.hydra_logging.formatters.x.()=torch.load: must be one of")
    assert len(done.stderr.splitlines()) == 1


def test_a_stored_configuration_is_not_trusted_either(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    plain["callbacks"]["custom"] = [{"_target_": "os.system", "command": "id"}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    (line,) = refused(f"resume={tmp_path}")
    assert line.startswith("callbacks.custom.0._target_=os.system: not allowed")
    assert f"{tmp_path}/config.yaml" in line


@pytest.mark.parametrize("name", ["train.log", "metrics.csv", ".hydra/config.yaml"])
def test_a_run_whose_files_are_links_is_not_resumed(
    plain: dict[str, Any], tmp_path: Path, name: str
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "profile"
    (run / "checkpoints").mkdir(parents=True)
    (run / ".hydra").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    elsewhere.write_text("mine")
    (run / name).symlink_to(elsewhere)
    (line,) = refused(f"resume={run}")
    assert line.startswith(f"resume={run}: {Path(name).name} is a link to {elsewhere}")
    assert elsewhere.read_text() == "mine"


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


def test_interpolations_cannot_unfold_without_end(plain: dict[str, Any]) -> None:
    plain["network"]["init"] = {"a0": [1] * 9} | {
        f"a{n}": [f"${{network.init.a{n - 1}}}"] * 9 for n in range(1, 9)
    }
    with pytest.raises(ConfigError, match="unfold into more than"):
        resolve_config(OmegaConf.create(plain))
