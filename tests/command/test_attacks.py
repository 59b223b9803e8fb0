"""Attempts to run code or to write elsewhere: each is one line and status 2, and nothing happens.

Whatever a configuration may hold is tried as somebody else could have written it, in overrides and
in files of choices. ``FOLDER`` is the attacker's.
"""

import contextlib
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict

from convtrain.command.hydra_node.check import check_hydra
from convtrain.command.loader import GuardedLoader
from convtrain.config.trust import (
    CALLBACK,
    HYDRA_CALLBACK,
    LAUNCHER,
    MODULE,
    SAMPLER,
    SWEEPER,
    Kind,
    load,
    refusal,
)
from convtrain.errors import ConfigError
from convtrain.run.commands import CONFIGS
from tests.command.typed import check

TARGETS = {
    "hydra.callbacks.e{i}": [
        "torch.nn.modules.module.torch.hub.load",
        "torch.nn.modules.module.torch.load",
        "torch.load",
        "pytorch_lightning.callbacks.model_checkpoint.shutil.copyfile",
        "pytorch_lightning.callbacks.Timer",
        "hydra.experimental.callbacks.PickleJobInfoCallback",
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra.utils.get_object",
        "convtrain.sweeps.callback.sys.exit",
        "convtrain.sweeps.callback.atexit.register",
        "convtrain.sweeps.callback.begin_sweep",
        "convtrain.sweeps.callback.Path",
        "convtrain.sweeps.jobs.train_unless_done",
        "convtrain.sweeps.SweepTable",
        "convtrain.launch.launcher.run_rank",
        "logging.config.fileConfig",
        "runpy.run_path",
        "marking.Callback",
    ],
    "hydra.launcher": [
        "hydra._internal.core_plugins.basic_launcher.configure_log",
        "hydra._internal.core_plugins.basic_launcher.Path",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.logging.config.fileConfig",
        "marking.Launcher",
        "subprocess.Popen",
    ],
    "hydra.launcher.x{i}": ["torch.hub.load", "hydra._internal.core_plugins.basic_launcher.Path"],
    "hydra.sweeper": ["hydra._internal.core_plugins.basic_launcher.BasicLauncher", "os.system"],
    "hydra.sweeper.sampler.x{i}": ["optuna.samplers._base.logging.config.fileConfig", "os.system"],
    "hydra.callbacks.d{i}.more": ["convtrain.sweeps.callback.SweepTable", "pickle.load"],
    "hydra.job.x": ["os.system"],
    "model": [
        "torch.nn.modules.module.torch.hub.load",
        "torch.nn.functional.torch.load",
        "torch.nn.modules.linear.Linear.__init__",
        "torch.nn.utils.torch.jit.load",
        "marking.Net",
    ],
}  # fmt: skip
"""What may not be named, by where it is named."""

OVERRIDES = {
    "hydra.callbacks.e._target_: one interpolation for a word":
        ["+hydra.callbacks.e={_target_: '${data.root}'}", "data.root=os.system"],
    "hydra.callbacks.e._target_: one interpolation for a node":
        ["+network.init={z: {_target_: os.system, command: id}}",
         "+hydra.callbacks.e=${network.init.z}"],
    "hydra.callbacks.e._target_: made by a resolver":
        ["+hydra.callbacks.e=\"${oc.decode:'{_target_: os.system}'}\""],
    "hydra.callbacks.e: a list": ["+hydra.callbacks.e=[{_target_: os.system}]"],
    "hydra.callbacks.e: no class": ["+hydra.callbacks.e={command: id}"],
    "hydra.callbacks.e._partial_": ["+hydra.callbacks.e={_partial_: true, "
        "_target_: convtrain.sweeps.callback.SweepTable}"],
    "hydra.callbacks.e.identity: an interpolation that is resolved later":
        ["+hydra.callbacks.e={_target_: convtrain.sweeps.callback.SweepTable, "
         "identity: '\\${network.init}'}"],
    "hydra.sweeper.custom_search_space":
        ["hydra/sweeper=optuna", "hydra.sweeper.custom_search_space=os.system"],
    "hydra.launcher.submitit_folder":
        ["hydra/launcher=submitit_local", "hydra.launcher.submitit_folder=FOLDER/%j"],
    "hydra.launcher.pre_dispatch":
        ["hydra/launcher=joblib", "hydra.launcher.pre_dispatch=\"__import__('os').getpid()\""],
    "hydra.job_logging.formatters.x.class":
        ["+hydra.job_logging.formatters.x={class: logging.config.valid_ident}"],
    "hydra.job_logging.formatters.dated.class":
        ["+hydra.job_logging.formatters.dated.class=logging.FileHandler"],
    "hydra.job_logging.formatters.x.style":
        ["+hydra.job_logging.formatters.x={format: '{record}', style: '{'}"],
    "hydra.job_logging.handlers.x.class":
        ["+hydra.job_logging.handlers.x={class: logging.handlers.SocketHandler, host: h, port: 1}"],
    "hydra.job_logging.handlers.console.stream":
        ["hydra.job_logging.handlers.console.stream=ext://sys.modules"],
    "hydra.job_logging.handlers.console.stream: cfg":
        ["hydra.job_logging.handlers.console.stream=cfg://handlers"],
    "hydra.job_logging.handlers.file.filename":
        ["hydra.job_logging.handlers.file.filename=FOLDER/x.log"],
    "hydra.job_logging.handlers.file.filename: by interpolation":
        ["hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/${data.root}'",
         "data.root=../x"],
    "hydra.job_logging.handlers.file.filename: of its own directory":
        ["hydra.job_logging.handlers.file.filename='${data.root}/x'", "data.root=FOLDER"],
    "hydra.hydra_logging.handlers.x.filename":
        ["hydra/hydra_logging=default", "+hydra.hydra_logging.handlers.x={class: "
         "logging.FileHandler, filename: '${hydra.runtime.output_dir}/x'}"],
    "hydra.runtime.output_dir": ["hydra.runtime.output_dir=FOLDER"],
    "hydra.job.name": ["hydra.job.name=../x"],
    "hydra.job.name: by interpolation": ["hydra.job.name=${data.root}", "data.root=../../x"],
    "hydra.job.name: of a folder": ["hydra.job.name=a/b"],
    "hydra.output_subdir": ["hydra.output_subdir=${hydra.job.id}", "hydra.job.id=../x"],
    "hydra.output_subdir: the run's directory": ["hydra.output_subdir=."],
    "hydra.sweep.subdir": ["hydra.sweep.subdir='${data.root}/${hydra.job.num}'", "data.root=/x"],
    "hydra.sweep.subdir: by a job's number":
        ["hydra.sweep.subdir='${hydra.job.num}/../../x'"],
    "hydra.sweep.subdir: by what is typed":
        ["hydra.sweep.subdir='${hydra.job.override_dirname}'", "data.root=../../x"],
    "hydra.job.env_set.LD_PRELOAD: a whole node":
        ["network.init={LD_PRELOAD: x.so}", "hydra.job.env_set='${network.init}'"],
    "trust.0": ["trust=[torch]", "model=custom", "+model._target_=torch.hub.load"],
    "trust.0: of convtrain": ["trust=[convtrain]"],
}  # fmt: skip
"""By the key that is reported; what follows a colon tells cases apart."""

ALONE = {
    "hydra.searchpath.0: a package": ["hydra.searchpath=[pkg://marking]"],
    "hydra.searchpath.0: with a space": ["hydra.searchpath=[' pkg://marking']"],
    "hydra.searchpath.0: another scheme": ["hydra.searchpath=[git://marking]"],
    "--experimental-rerun": ["--experimental-rerun=FOLDER/config.pickle"],
}  # fmt: skip
"""What ends the check of all else."""

VARIABLES = (
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PYTHONPATH",
    "PYTHONSTARTUP", "PYTHONHOME", "PATH", "BASH_ENV", "CUDA_INJECTION64_PATH", "CUDA_PATH",
    "CUDA_CACHE_PATH", "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_PROFILER_PLUGIN",
    "NCCL_CONF_FILE", "NCCL_DEBUG_FILE", "CUBLAS_LOGDEST_DBG", "OMP_TOOL_LIBRARIES", "OMP_TOOL",
    "PYTORCH_KERNEL_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
    "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE",
)  # fmt: skip
"""Environment variables that load code, or write files of any name."""

FILES: dict[str, dict[str, Any]] = {
    "hydra.callbacks.e._target_: an experiment": {"hydra": {"callbacks": {
        "e": {"_target_": "torch.nn.modules.module.torch.hub.load", "repo_or_dir": "FOLDER",
              "model": "m", "source": "local"}}}},
    "hydra.mode: an experiment that sweeps": {"hydra": {"mode": "MULTIRUN"}},
    "hydra.callbacks.e._target_: a list of defaults":
        {"defaults": [{"/bad@hydra.callbacks.e": "callback"}]},
    "hydra.callbacks.e._target_: all callbacks by one interpolation":
        {"network": {"blocks": {"e": {"_target_": "torch.hub.load"}}},
         "hydra": {"callbacks": "${network.blocks}"}},
    "hydra.sweeper.params.hydra.job.name": {"hydra": {"sweeper": {"params":
        {"hydra.job.name": "../x,../y"}}}},
    "hydra.sweeper.params.+hydra.job_logging.formatters.x.()": {"hydra": {"sweeper": {"params":
        {"+hydra.job_logging.formatters.x.()": "torch.hub.load"}}}},
    "hydra.job_logging.formatters.x.(): a whole node": {
        "network": {"blocks": {"version": 1, "root": {}, "formatters": {
            "x": {"()": "torch.hub.load", "repo_or_dir": "FOLDER", "model": "m"}}}},
        "hydra": {"job_logging": "${network.blocks}"}},
    "hydra.job_logging.formatters.x.()": {"hydra": {"job_logging": {"formatters": {
        "x": {"()": "torch.hub.load"}}}}},
    "hydra.job_logging.filters.x.()": {"hydra": {"job_logging": {"filters": {
        "x": {"()": "torch.hub.load"}}}}},
    "hydra.job_logging.handlers.x.queue.()": {"hydra": {"job_logging": {"handlers": {
        "x": {"class": "logging.NullHandler", "queue": {"()": "os.system"}}}}}},
    "hydra.job_logging.handlers.file...baseFilename": {"hydra": {"job_logging": {"handlers": {
        "file": {".": {"baseFilename": "/tmp/x"}}}}}},
    "hydra.job_logging.loggers.convtrain.handlers.0.()": {"hydra": {"job_logging": {"loggers": {
        "convtrain": {"handlers": [{"()": "os.system"}]}}}}},
    "hydra.hydra_logging.handlers.x.()": {"hydra": {"hydra_logging": {"handlers": {
        "x": {"()": "os.system"}}}}},
    "hydra.sweep.subdir: chosen by a job's number": {
        "network": {"blocks": {"0": "a", "1": "../x"}},
        "hydra": {"sweep": {"subdir": "${network.blocks.${hydra.job.num}}"}}},
    "callbacks.custom.0._target_: no callback":
        {"callbacks": {"custom": [{"_target_": "torch.nn.Linear"}]}},
    "callbacks.custom.0._target_: another module's function": {"callbacks": {"custom": [
        {"_target_": "pytorch_lightning.callbacks.timer.timedelta.fromisoformat"}]}},
    "callbacks.custom.0._target_: an experiment":
        {"callbacks": {"custom": [{"_target_": "torch.hub.load"}]}},
    "hydra.job.env_set.PYTHONPATH: an experiment":
        {"hydra": {"job": {"env_set": {"PYTHONPATH": "FOLDER"}}}},
    "hydra.sweeper.params.hydra.callbacks: an experiment":
        {"hydra": {"sweeper": {"params": {"hydra.callbacks": "x"}}}},
}  # fmt: skip


def in_folder(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: in_folder(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [in_folder(inner, folder) for inner in value]
    return value.replace("FOLDER", str(folder)) if isinstance(value, str) else value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The attacker's folder; whatever is there before, and nothing else, is there afterwards."""
    here = tmp_path / "attack"
    (here / "bad").mkdir(parents=True)
    (here / "experiment").mkdir()
    mark = here / "MARK"
    leaves_mark = f"open({str(mark)!r}, 'w').close()\n"
    (here / "marking.py").write_text(leaves_mark)
    (here / "hubconf.py").write_text(f"{leaves_mark}m = dict\n")
    (here / "bad" / "callback.yaml").write_text("_target_: torch.hub.load\n")
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.chdir(tmp_path)
    for name, values in FILES.items():
        text = f"# @package _global_\n{yaml.safe_dump(in_folder(values, here), sort_keys=False)}"
        (here / "experiment" / f"{number(name)}.yaml").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    yield here
    assert sorted(tmp_path.rglob("*")) == before
    assert "marking" not in sys.modules


def number(name: str) -> str:
    return f"e{list(FILES).index(name)}"


def assert_reported(key: str, lines: list[str]) -> None:
    """One line, or two where what is wrong is also wrong where it stands."""
    assert len(lines) in (1, 2), lines
    assert any(line.startswith((f"{key}=", f"{key}: ")) for line in lines), lines


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        check(arguments)
    assert stopped.value.code == status
    return capsys.readouterr().err.splitlines()


def together(entries: dict[str, list[str]]) -> Iterator[dict[str, list[str]]]:
    """Yield entries in as few commands as there can be with each key once: composing is slow."""
    batches: list[tuple[set[str], dict[str, list[str]]]] = []
    for name, typed in entries.items():
        keys = {text.lstrip("+").partition("=")[0] for text in typed}
        taken, batch = next((b for b in batches if not b[0] & keys), (set[str](), {}))
        if not batch:
            batches.append((taken, batch))
        taken |= keys
        batch[name] = typed
    yield from (batch for _, batch in batches)


# fmt: off
NAMED = {
    f"{(key := where.format(i=index))}._target_={target}": [
        *(["model=custom"] if where == "model" else []), f"++{key}._target_={target}"
    ]
    for where, targets in TARGETS.items()
    for index, target in enumerate(targets)
}
# fmt: on


@pytest.mark.parametrize(
    "batch",
    [*together({**NAMED, **OVERRIDES}), *({name: typed} for name, typed in ALONE.items())],
    ids=lambda batch: len(batch),
)
def test_overrides_run_nothing_and_lead_nowhere(
    batch: dict[str, list[str]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = refused(in_folder([text for typed in batch.values() for text in typed], folder), capsys)
    for name in batch:
        key = name.partition(": ")[0]
        found = [line for line in lines if line.startswith((f"{key}=", f"{key}: "))]
        assert found, (key, lines)
        assert "no such key" not in found[0], found


def test_no_variable_that_loads_code_is_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = refused([f"+hydra.job.env_set.{name}=/x.so" for name in VARIABLES], capsys)
    reported = {line.partition("=")[0].rpartition(".")[2] for line in lines}
    assert reported == set(VARIABLES)


@pytest.mark.parametrize("name", FILES)
def test_files_run_nothing(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(["--config-dir", str(folder), f"experiment={number(name)}"], capsys)
    assert_reported(name.partition(": ")[0], lines)


# --- what Hydra itself composes -------------------------------------------------------------------


@pytest.fixture
def guarded(folder: Path) -> Iterator[GuardedLoader]:
    """Hydra's loader as train.py has it, after a check that an attack has passed."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        path = hydra.config_loader.get_search_path()
        path.prepend("command-line", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
        hydra.config_loader = loader = GuardedLoader(path)
        yield loader


HYDRAS = (
    "hydra.callbacks.e._target_: a list of defaults",
    "hydra.callbacks.e._target_: all callbacks by one interpolation",
    "hydra.job_logging.formatters.x.(): a whole node",
    "hydra.sweep.subdir: chosen by a job's number",
)


@pytest.mark.parametrize("name", HYDRAS)
def test_hydra_makes_nothing_of_what_it_composes(
    name: str, guarded: GuardedLoader, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        compose("train", [f"experiment={number(name)}"], return_hydra_config=True)
    assert stopped.value.code == 2
    assert_reported(name.partition(": ")[0], capsys.readouterr().err.splitlines())


def test_each_job_of_a_sweep_is_checked(
    guarded: GuardedLoader, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = compose("train", ["hydra.sweep.subdir=a"], return_hydra_config=True)
    guarded.load_sweep_config(whole, ["seed=2", "hydra.sweep.subdir=b"])
    with pytest.raises(SystemExit):
        guarded.load_sweep_config(whole, ["seed=2", "hydra.sweep.subdir=../b"])
    assert capsys.readouterr().err.startswith("hydra.sweep.subdir=../b: must stay inside")


def test_what_was_checked_is_what_is_used(guarded: GuardedLoader) -> None:
    """A resolver that answers differently each time decides what is made, once."""
    allowed = "convtrain.sweeps.callback.SweepTable"
    answers = iter([allowed, "os.system", "os.system"])
    OmegaConf.register_new_resolver("turn", lambda: next(answers))
    try:
        composed = compose(
            "train",
            ["+hydra.callbacks.e={_target_: '${turn:}'}"],
            return_hydra_config=True,
        )
        assert composed.hydra.callbacks.e._target_ == allowed
        assert composed.hydra.callbacks.e._target_ == allowed
    finally:
        OmegaConf.clear_resolver("turn")


def test_a_trusted_package_may_hold_a_callback_of_hydras(
    guarded: GuardedLoader, tmp_path: Path
) -> None:
    (tmp_path / "attack" / "marking.py").write_text(
        "from hydra.experimental.callback import Callback\nclass Mine(Callback): pass\n"
    )
    typed = ["trust=[marking]", "+hydra.callbacks.e._target_=marking.Mine"]
    composed = compose("train", typed, return_hydra_config=True)
    assert composed.hydra.callbacks.e._target_ == "marking.Mine"
    assert not list(check_hydra(composed.hydra, ["marking"])[1])
    with pytest.raises(SystemExit):
        compose("train", [*typed[:1], "+hydra.callbacks.e._target_=marking.Callback"])
    del sys.modules["marking"]


def test_a_jobs_own_values_are_still_filled_in(guarded: GuardedLoader) -> None:
    typed = ["hydra.sweep.subdir=${hydra.job.num}"]
    composed = compose("train", typed, return_hydra_config=True)
    with open_dict(composed):
        composed.hydra.job.num, composed.hydra.runtime.output_dir = 7, "/run"
    assert str(composed.hydra.sweep.subdir) == "7"
    assert (
        composed.hydra.job_logging.handlers.file.filename == f"/run/{composed.hydra.job.name}.log"
    )


def test_a_function_is_no_class_and_a_class_is_defined_where_it_is_named() -> None:
    for target, kind, reason in (
        ("torch.nn.modules.module.register_module_forward_hook", MODULE, "derived from"),
        ("torch.nn.functional.linear", MODULE, "derived from"),
        ("torch.nn.Parameter", MODULE, "derived from"),
        ("torch.nn.modules.activation.Linear", MODULE, "cannot be imported"),
        ("torch.nn.modules.module.Any", MODULE, "derived from"),
        ("torch.nn.modules.activation.Module", MODULE, "name it there"),
        ("pytorch_lightning.callbacks.early_stopping.Callback", CALLBACK, "name it there"),
        ("pytorch_lightning.callbacks.timer.timedelta", CALLBACK, "derived from"),
        ("convtrain.sweeps.callback.Callback", HYDRA_CALLBACK, "name it there"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load("key", target, [], kind)
    for target, kind in (
        ("torch.nn.Linear", MODULE),
        ("torch.nn.modules.linear.Linear", MODULE),
        ("pytorch_lightning.callbacks.Timer", CALLBACK),
        ("pytorch_lightning.callbacks.timer.Timer", CALLBACK),
        ("convtrain.sweeps.callback.SweepTable", HYDRA_CALLBACK),
    ):
        assert load("key", target, [], kind).__name__ == target.rpartition(".")[2]


# --- every module below every prefix --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [MODULE, CALLBACK, HYDRA_CALLBACK, LAUNCHER, SWEEPER, SAMPLER], ids=lambda k: k.words
)
def test_of_all_that_is_reachable_only_classes_of_its_kind_are_made(kind: Kind) -> None:
    """Follows attributes from module to module, as Hydra's own search for a name does."""
    allowed, seen = set[Any](), set[int]()
    base = load_base(kind)
    for prefix in kind.packages:
        for name in reachable(prefix, seen):
            if refusal(name, [], kind) is None:
                try:
                    allowed.add(load("key", name, [], kind))
                except ConfigError:
                    continue
    assert allowed
    for found in allowed:
        assert issubclass(found, base)
        assert any(f"{found.__module__}.".startswith(f"{prefix}.") for prefix in kind.packages)


def load_base(kind: Kind) -> type[Any]:
    module, _, name = kind.base.rpartition(".")
    base: type[Any] = getattr(import_module(module), name)
    return base


def reachable(prefix: str, seen: set[int]) -> Iterator[str]:
    """Yield the dotted name of every attribute of modules, of those two modules away too."""
    start = import_module(prefix)
    names = [prefix]
    for found in pkgutil.walk_packages(getattr(start, "__path__", None) or [], f"{prefix}."):
        with contextlib.suppress(Exception):
            import_module(found.name)
            names.append(found.name)
    waiting = [(name, sys.modules[name], 0) for name in names]
    while waiting:
        name, module, depth = waiting.pop()
        for attribute, value in list(vars(module).items()):
            inner = f"{name}.{attribute}"
            yield inner
            if isinstance(value, ModuleType) and id(value) not in seen and depth < 2:
                seen.add(id(value))
                waiting.append((inner, value, depth + 1))
