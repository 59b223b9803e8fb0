"""A training that fails says what, where, and leaves its last good checkpoint and its record."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from convtrain.data.batches import Batch, Batches
from convtrain.errors import ConfigError, NetworkError, TrainingError
from convtrain.gradients import load
from convtrain.training.callbacks.progress_bar import RunProgress
from convtrain.training.task import Task
from tests.conftest import Train
from tests.killing import nth_call

SMALL = ("data.limit=256", "data.batch_size=64", "logger=csv", "trainer.max_epochs=3")

BROKEN = """
import pytorch_lightning as pl
class Broken(pl.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6:
            raise RuntimeError("no more\\nfor today")
"""


@pytest.mark.parametrize("alarm", ["warn", "off"])
@pytest.mark.parametrize("recorder", ["off", "norms"])
def test_weights_that_are_lost_end_the_training_and_are_never_saved(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alarm: str,
    recorder: str,
) -> None:
    loss_and_logits = Task.loss_and_logits

    def poisoned(self: Task, batch: Batch, batch_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        loss, scores = loss_and_logits(self, batch, batch_idx)
        return (loss * float("nan") if self.global_step == 5 else loss), scores

    monkeypatch.setattr(Task, "loss_and_logits", poisoned)
    with pytest.raises(TrainingError) as raised:
        train(*SMALL, f"alarm={alarm}", f"recorder={recorder}", "trainer.log_every_n_steps=2")
    message = str(raised.value)
    where = "step 6, epoch 1, batch 1" if alarm == "warn" else "step 8, epoch 1, batch 3"
    assert message.startswith(f"after {where}: conv2d_1.weight is not finite any more")
    assert len(message.splitlines()) == 1
    run = tmp_path / "run"
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(torch.isfinite(weight).all() for weight in saved["state_dict"].values())
    assert not (run / "result.json").exists()
    if recorder == "norms":
        last = 6 if alarm == "warn" else 8
        assert load(run, "steps")["step"].to_pylist() == list(range(1, last + 1))


def test_an_exception_in_a_callback_of_ones_own_is_one_line_that_says_where(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brokencallback.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    custom = ("trust=[brokencallback]", "callbacks.custom=[{_target_: brokencallback.Broken}]")
    with pytest.raises(TrainingError) as raised:
        train(*SMALL, *custom)
    line = "step 6, epoch 1, batch 1: RuntimeError: no more (brokencallback.py, line 6)"
    assert str(raised.value) == line
    assert isinstance(raised.value.__cause__, RuntimeError)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert load(tmp_path / "run", "steps")["step"].to_pylist()[:5] == [1, 2, 3, 4, 5]


# What fails, at its n-th call from 0, and where that is. An epoch has four batches, and two of
# validation.
PLACES: dict[str, tuple[Any, str, int, str]] = {
    "the first batch": (Task, "forward", 0, "step 1, epoch 0, batch 0"),
    "the last batch of an epoch": (Task, "loss_and_logits", 3, "step 4, epoch 0, batch 3"),
    "the first batch of another": (Task, "loss_and_logits", 4, "step 5, epoch 1, batch 0"),
    "the backward pass": (Task, "backward", 5, "step 6, epoch 1, batch 1"),
    "clipping": (Task, "configure_gradient_clipping", 6, "step 7, epoch 1, batch 2"),
    "a callback after a batch": (RunProgress, "on_train_batch_end", 4, "step 5, epoch 1, batch 0"),
    "making a batch": (Batches, "_mine", 2, "after step 1, epoch 0, batch 0"),
    "a validation": (Task, "forward", 5, "validation batch 1, after step 4, epoch 0, batch 3"),
    "after a validation": (RunProgress, "on_train_epoch_end", 0, "after step 4, epoch 0, batch 3"),
    "the test": (Task, "forward", 18, "test batch 0, after step 12, epoch 2, batch 3"),
}  # fmt: skip


@pytest.mark.parametrize(("owner", "method", "number", "where"), PLACES.values(), ids=PLACES)
def test_a_failure_names_the_batch_that_failed(
    train: Train, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, number: int, where: str
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(owner, method, nth_call(number, fail, getattr(owner, method)))
    with pytest.raises(TrainingError) as raised:
        train(*SMALL, "callbacks.progress_bar=true", "logger=none")
    assert str(raised.value).startswith(f"{where}: RuntimeError: broken")


def test_a_failure_names_the_batch_among_those_that_are_accumulated(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Task, "forward", nth_call(3, fail, Task.forward))
    with pytest.raises(TrainingError, match=r"^step 2, epoch 0, batch 3: "):
        train(*SMALL, "trainer.accumulate_grad_batches=3")


LEAVING = """
import pytorch_lightning as pl
class Leaving(pl.Callback):
    def __init__(self, how): self.how = how
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6:
            raise SystemExit(0) if self.how == "exit" else KeyboardInterrupt
"""


@pytest.mark.parametrize(("how", "says"), [("exit", "SystemExit: 0"), ("key", "KeyboardInterrupt")])
def test_a_callback_that_leaves_has_not_finished_the_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, says: str
) -> None:
    """Status 0 would mean that it is done."""
    (tmp_path / "leavingcallback.py").write_text(LEAVING)
    monkeypatch.syspath_prepend(tmp_path)
    custom = f"callbacks.custom=[{{_target_: leavingcallback.Leaving, how: {how}}}]"
    with pytest.raises(TrainingError) as raised:
        train(*SMALL, "trust=[leavingcallback]", custom)
    assert str(raised.value).startswith(f"step 6, epoch 1, batch 1: {says} (leavingcallback.py")
    assert not (tmp_path / "run" / "result.json").exists()


OWN = """
import torch
class Net(torch.nn.Linear):
    def __init__(self): raise RuntimeError("not\\ntoday")
"""


def test_what_a_class_of_ones_own_raises_is_one_line(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownraising.py").write_text(OWN)
    (tmp_path / "ownunreadable.py").write_text("this is no Python")
    monkeypatch.syspath_prepend(tmp_path)
    for target, says in {
        "ownraising.Net": r"RuntimeError: not \(ownraising\.py, line 4\)$",
        "ownunreadable.Net": r"cannot be imported: SyntaxError",
    }.items():
        package = target.partition(".")[0]
        with pytest.raises(ConfigError, match=rf"^model\._target_={target}: {says}") as raised:
            train("model=custom", f"model._target_={target}", f"trust=[{package}]")
        assert len(str(raised.value).splitlines()) == 1


def test_a_network_that_fits_in_no_memory_is_one_line(train: Train) -> None:
    layers = "[Flatten, {Linear: {out_features: 2000000000000}}, {Linear: {out_features: 10}}]"
    with pytest.raises(NetworkError, match=r"does not fit into this machine's memory") as raised:
        train(f"network.layers={layers}")
    assert len(str(raised.value).splitlines()) == 1


def test_the_terminal_has_one_line_and_the_log_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from convtrain.launch.job import run_job
    from tests.conftest import QUICK, compose

    (tmp_path / "brokencallback.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    custom = ("trust=[brokencallback]", "callbacks.custom=[{_target_: brokencallback.Broken}]")
    config, run = compose(*QUICK, *SMALL, *custom), tmp_path / "run"
    with pytest.raises(SystemExit) as ended, caplog.at_level(logging.ERROR):
        run_job(lambda: config, run_dir=run, overrides=(), multirun=False)
    assert ended.value.code == 1
    (line,) = [r.getMessage() for r in caplog.records if r.name == "convtrain"]
    assert line.startswith("step 6, epoch 1, batch 1: RuntimeError: no more")
    assert (run / "error.txt").read_text() == line + "\n"
    (traceback,) = [r.getMessage() for r in caplog.records if r.name == "traceback"]
    assert "Traceback" in traceback
    assert "brokencallback.py" in traceback
