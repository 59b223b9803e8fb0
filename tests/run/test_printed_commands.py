"""Each command that convtrain prints works when it is pasted where it was printed."""

import logging
import re
import runpy
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from convtrain.__main__ import main
from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.config.schema import Config
from convtrain.process.signals import NAMES, Interrupted, Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result
from tests.command.typed import check
from tests.conftest import REPOSITORY, slow_but

RESULT: Result = {
    "test/acc": 0.5, "test/loss": 1.0, "val/acc": 0.5, "val/loss": 1.0, "images_per_second": 1.0,
    "data_share_of_time": 0.1, "wall_time_seconds": 1.0, "steps": 21, "epochs": 1,
    "recorder": {"bytes": 1, "share_of_time": 0.1},
}  # fmt: skip
MINE = "# @package _global_\noptimizer:\n  lr: 0.03\n"
AWKWARD = "a [b], c=d/it's (e) é ${x} $y & z"


class Typed:
    """``python train.py`` in a folder of its own, with a training that takes no time.

    Attributes:
        folder: that it is typed in.
        stop: the signal that each training ends by, if any.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.stop = folder, 0
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        """Return what is printed."""
        HydraConfig.instance().cfg = None
        GlobalHydra.instance().clear()
        sys.argv = ["train.py", *arguments]
        status: Any = 0
        try:
            runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")
        except SystemExit as left:
            status = left.code
        finally:
            HydraConfig.instance().cfg = None
        printed = self._capsys.readouterr()
        assert status in (0, None, 128 + self.stop), printed.err
        return printed.out + printed.err

    def train(
        self, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals, **_: Any
    ) -> Result:
        run = Run(run_dir)
        run.begin(config, overrides, {"threads": 1})
        run.checkpoints.mkdir(exist_ok=True)
        run.last_checkpoint.write_bytes(b"state")
        (run.path / "gradients").mkdir(exist_ok=True)
        (run.path / "events.out.tfevents.1").touch()
        if self.stop:
            raise Interrupted(self.stop)
        run.finish(RESULT)
        return RESULT


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Typed]:
    folder = tmp_path / "here"
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    found = Typed(folder, capsys)
    for module in ("convtrain.launch.job", "convtrain.launch.start"):
        monkeypatch.setattr(f"{module}.train_anywhere", found.train)
    monkeypatch.setattr("convtrain.process.startup.skip_last_collection", lambda: None)
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in NAMES}
    root, ours = logging.getLogger(), logging.getLogger("convtrain")
    before = list(root.handlers), list(ours.handlers), root.level
    yield found
    for name, handler in handlers.items():
        signal.signal(getattr(signal, name), handler)
    root.handlers, ours.handlers = before[0], before[1]
    root.setLevel(before[2])
    GlobalHydra.instance().clear()


def commands_in(printed: str) -> list[list[str]]:
    """Return the words of each command that is printed."""
    found = re.findall(
        r"(?:^|(?<=\s))(?:env \S+ )?\S*(?:python|tensorboard) .*", printed, flags=re.M
    )
    return [shlex.split(line) for line in found]


def paste(words: list[str], capsys: pytest.CaptureFixture[str]) -> Config | None:
    """Do what a command does as far as it can be told without training."""
    if words[0] == "env":
        assert words[1] == f"PYTHONPATH={REPOSITORY}"
        words = words[2:]
    program, *arguments = words
    if Path(program).name == "tensorboard":
        assert arguments[0] == "--logdir"
        assert any(Path(arguments[1]).rglob("events.out.tfevents*"))
        return None
    if arguments[:2] == ["-m", "convtrain"]:
        assert main(["diff", *arguments[3:], *arguments[3:]]) == 0  # any verb that takes a run
        capsys.readouterr()
        return None
    assert Path(arguments[0]).resolve() == REPOSITORY / "train.py"
    return configure_command(CommandLine.parse(arguments[1:])).configs[0]


SITUATIONS: dict[str, tuple[list[list[str]], dict[str, Any]]] = {
    "plain": ([["optimizer.lr=0.02"]], {"optimizer.lr": 0.02}),
    "a folder of choices": (
        [["--config-dir", "conf", "experiment=mine"]], {"optimizer.lr": 0.03},
    ),
    "a folder of choices, typed behind": (
        [["experiment=mine", "--config-dir=conf"]], {"optimizer.lr": 0.03},
    ),
    "resumed": (
        [["optimizer.lr=0.02", "hydra.run.dir=r"], ["resume=r", "trainer.max_epochs=60"]],
        {"optimizer.lr": 0.02, "trainer.max_epochs": 60},
    ),
    "resumed twice": (
        [
            ["optimizer.lr=0.02", "hydra.run.dir=r"],
            ["+resume=r", "trainer.max_epochs=60"],
            ["resume=auto", "optimizer.lr=0.02", "trainer.max_epochs=70", "hydra.run.dir=r"],
        ],
        {"optimizer.lr": 0.02, "trainer.max_epochs": 70},
    ),
    "a directory elsewhere": ([["hydra.run.dir=../out"]], {}),
    "an awkward directory": ([[f'hydra.run.dir="{AWKWARD.replace("${x}", "")}"']], {}),
    "an awkward value": (
        [['data.root="' + AWKWARD.replace("${x}", r"\${x}") + '"']], {"data.root": AWKWARD},
    ),
    "a key that no file has": (
        [["network.prune={}", "seed=2"]], {"seed": 2},
    ),
    "a choice left out": ([["~experiment", "seed=2"]], {"seed": 2}),
    "the other style by its key": ([["model.style=nn", "seed=2"]], {"seed": 2}),
    "a key of the model": (
        [["model=nn", "model.freeze=[backbone]"]], {"model.freeze": ["backbone"]},
    ),
    "a step limit": ([["trainer.max_steps=21"]], {}),
    "in the run's directory": ([["hydra.job.chdir=true"]], {}),
    "a sweep": (
        [["-m", "optimizer.lr=0.02", "seed=1,2", "--config-dir", "conf", "experiment=mine"]],
        {"optimizer.lr": 0.02},
    ),
    "a sweep of awkward values": (
        [["-m", 'data.root="a,b","c d=\'e\'"', "~experiment", "hydra.sweep.dir='s [x] é'"]], {},
    ),
}  # fmt: skip


def value_of(config: Config, key: str) -> Any:
    node: Any = config.model_dump(by_alias=True)
    for part in key.split("."):
        node = node[part]
    return node


FAST = (
    "plain", "a folder of choices", "resumed twice", "an awkward directory", "an awkward value",
    "a sweep",
)  # fmt: skip


@pytest.mark.parametrize(
    "situation",
    slow_but(SITUATIONS, *FAST),
)
def test_what_a_report_prints_can_be_pasted(
    situation: str, typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, expected = SITUATIONS[situation]
    for arguments in lines:
        printed = typed(*arguments)
    found = commands_in(printed)
    assert len(found) >= (1 if "sweep" in situation else 4), printed
    for words in found:
        config = paste(words, capsys)
        resumes = config is not None and config.resume is not None
        for key, value in expected.items():
            if config is not None and not (resumes and key == "trainer.max_epochs"):
                assert value_of(config, key) == value, words
        if resumes:
            assert config is not None
            assert config.trainer.max_epochs > RESULT["epochs"]
            assert config.trainer.max_steps is None or config.trainer.max_steps > 21


def test_what_a_stopped_run_prints_can_be_pasted(
    typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    typed.stop = signal.SIGTERM
    (words,) = commands_in(typed(f"hydra.run.dir='{AWKWARD[:8]}'", "optimizer.lr=0.02"))
    config = paste(words, capsys)
    assert config is not None
    assert (config.resume, value_of(config, "optimizer.lr")) == (AWKWARD[:8], 0.02)


def test_what_a_stopped_sweep_prints_is_the_sweep_again(
    typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    typed.stop = signal.SIGTERM
    printed = typed("-m", "--config-dir=conf", "experiment=mine", "seed=1,2")
    words = commands_in(printed)[-1]
    first = check(["-m", "--config-dir=conf", "experiment=mine", "seed=1,2"])
    again = check(words[2:])
    assert again.settings == first.settings
    assert sorted(again.command.overrides) == sorted(first.command.overrides)


def test_what_a_refusal_prints_can_be_pasted(
    typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    typed.stop = signal.SIGTERM
    typed("hydra.run.dir='a b'")
    with pytest.raises(SystemExit):
        check(["hydra.run.dir='a b'"])
    for printed in (capsys.readouterr().err, ""):
        if not printed:
            with pytest.raises(Exception, match="not finished") as refused:
                Run("a b").finished_result()
            printed = str(refused.value)
        (words,) = commands_in(re.sub(r" \[set in: .*", "", printed))
        config = paste(words, capsys)
        assert config is not None
        assert config.resume == "a b"


def test_the_record_of_a_resumed_run_is_what_it_was_begun_with(typed: Typed) -> None:
    typed("optimizer.lr=0.02", "seed=3", "trainer.max_epochs=5", "hydra.run.dir=r")
    typed("resume=r", "trainer.max_epochs=60")
    stored = yaml.safe_load(Path("r/overrides.yaml").read_text())
    assert stored == ["optimizer.lr=0.02", "seed=3", "trainer.max_epochs=60"]
