"""When a training ends, why, and that it leaves out no number that it has promised."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from convtrain.errors import ConfigError
from convtrain.run.directory import Run
from convtrain.run.report import print_report
from convtrain.training.callbacks.checkpoints import BestCheckpoints
from convtrain.training.task import Task
from tests.conftest import Train, compose, slow_but

SMALL = ("data.limit=128", "data.batch_size=32", "logger=none", "recorder=off", "scheduler=none")

# --- patience -------------------------------------------------------------------------------------


def validate_with(monkeypatch: pytest.MonkeyPatch, values: Iterator[float]) -> None:
    """Let the loss and the accuracy of each validation be the next of some values."""
    on_validation_epoch_end = Task.on_validation_epoch_end

    def replacing(self: Task) -> None:
        running = self.entries.running["val"]
        sums = running.sums[2] * torch.tensor([value := next(values), value, 1])
        running.restore(torch.stack([sums, sums]))
        on_validation_epoch_end(self)

    monkeypatch.setattr(Task, "on_validation_epoch_end", replacing)


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    validate_with(monkeypatch, itertools.repeat(0.5))


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    validate_with(monkeypatch, (n / 10 for n in range(1, 10)))


@pytest.mark.usefixtures("stalled")
@pytest.mark.parametrize("interval", slow_but(["1.0", "0.25", "0.5", "3"], "1.0", "0.25"))
@pytest.mark.parametrize("metric", ["val/loss", "val/acc"])
def test_patience_counts_epochs_however_often_is_validated(
    train: Train, interval: str, metric: str
) -> None:
    result = train(
        *SMALL, f"trainer.val_check_interval={interval}", "trainer.max_epochs=9",
        "callbacks.early_stopping.patience=2", f"callbacks.early_stopping.monitor={metric}",
    )  # fmt: skip
    assert (result["epochs"], result["steps"]) == (3, 12)
    assert result["stopped_early"] == (
        f"{metric} has not improved on 0.5 for 2 epochs (callbacks.early_stopping.patience=2)"
    )


@pytest.mark.usefixtures("stalled")
@pytest.mark.parametrize("interval", ["1.0", "0.25"])
def test_a_plateau_s_patience_counts_epochs_too(
    train: Train, tmp_path: Path, interval: str
) -> None:
    train(
        *SMALL, f"trainer.val_check_interval={interval}", "trainer.max_epochs=5",
        "scheduler=plateau", "scheduler.patience=2", "optimizer=sgd", "optimizer.lr=0.1",
    )  # fmt: skip
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.01)
    assert saved["lr_schedulers"][0]["last_epoch"] == 5


ENDS: dict[str, tuple[list[str], str | None]] = {
    "the last epoch": ([], None),
    "the last step": (["trainer.max_steps=3"], "trainer.max_steps=3 was reached"),
}


@pytest.mark.parametrize(("overrides", "why"), ENDS.values(), ids=ENDS)
def test_the_report_says_why_a_training_has_stopped_early(
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    why: str | None,
) -> None:
    result = train(*SMALL, *overrides)
    assert result["stopped_early"] == why
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped_early"] == why
    print_report(result, config=compose(), run_dir=tmp_path / "run", overrides=overrides)
    assert ("stopped early" in capsys.readouterr().out) == (why is not None)


# --- which way is better --------------------------------------------------------------------------

WATCHING = ("callbacks.checkpoint", "callbacks.early_stopping", "scheduler")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("metric", ["val/loss", "val/acc"])
@pytest.mark.parametrize("section", WATCHING)
def test_a_metric_is_better_one_way(section: str, metric: str, mode: str) -> None:
    chosen = ["scheduler=plateau", f"{section}.monitor={metric}", f"{section}.mode={mode}"]
    if (metric, mode) in (("val/loss", "min"), ("val/acc", "max")):
        assert compose(*chosen)
        return
    right = "max" if metric == "val/acc" else "min"
    with pytest.raises(ConfigError) as raised:
        compose(*chosen)
    (line,) = raised.value.lines
    assert line.startswith(f"{section}.mode={mode}: ")
    assert f"set {section}.mode={right}" in line


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize(("metric", "epoch"), [("val/loss", 0), ("val/acc", 2)])
def test_the_best_checkpoint_is_the_best_of_its_metric(
    train: Train, metric: str, epoch: int
) -> None:
    result = train(
        *SMALL, "trainer.max_epochs=3", "callbacks.checkpoint.test_with=best",
        f"callbacks.checkpoint.monitor={metric}",
    )  # fmt: skip
    assert result["tested_checkpoint"].startswith(f"best-epoch{epoch:03d}")


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize(("metric", "epochs"), [("val/loss", 2), ("val/acc", 4)])
def test_early_stopping_and_plateau_follow_their_metric(
    train: Train, tmp_path: Path, metric: str, epochs: int
) -> None:
    watched = (f"callbacks.early_stopping.monitor={metric}", f"scheduler.monitor={metric}")
    result = train(
        *SMALL[:-1], "trainer.max_epochs=4", "callbacks.early_stopping.patience=1",
        "scheduler=plateau", "scheduler.patience=0", "optimizer=sgd", "optimizer.lr=0.1", *watched,
    )  # fmt: skip
    assert result["epochs"] == epochs
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    rate = saved["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.01 if metric == "val/loss" else 0.1)


# --- what is promised -----------------------------------------------------------------------------

CUTS: dict[str, list[str]] = {
    "before the first validation": ["trainer.max_steps=3"],
    "within the second epoch": ["trainer.max_steps=6", "trainer.max_epochs=3"],
    "at an epoch's end": ["trainer.max_steps=4"],
    "behind a validation within the epoch": [
        "trainer.max_steps=3", "trainer.val_check_interval=0.5",
    ],
    "at a validation within the epoch": ["trainer.max_steps=2", "trainer.val_check_interval=0.5"],
    "accumulating": ["trainer.max_steps=1", "trainer.accumulate_grad_batches=3"],
    "with early stopping": ["trainer.max_steps=3", "callbacks.early_stopping.patience=1"],
    "with a plateau": ["trainer.max_steps=3", "scheduler=plateau"],
    "with several of the best": ["trainer.max_steps=6", "callbacks.checkpoint.save_top_k=3"],
}  # fmt: skip


@pytest.mark.parametrize("overrides", CUTS.values(), ids=CUTS)
def test_a_training_that_ends_within_an_epoch_is_validated_and_keeps_its_best(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    validated: list[int] = []
    on_validation_end = Task.on_validation_end

    def noting(self: Task) -> None:
        validated.append(self.global_step)
        on_validation_end(self)

    monkeypatch.setattr(Task, "on_validation_end", noting)
    best = "callbacks.checkpoint.test_with=best"
    result = train(*SMALL, "trainer.max_epochs=1", best, *overrides)
    assert validated[-1] == result["steps"]
    assert len(validated) == len(set(validated))
    for name in ("val/acc", "val/loss", "test/acc", "test/loss", "train/loss_epoch"):
        assert isinstance(result[name], float)
    assert (tmp_path / "run" / "checkpoints" / result["tested_checkpoint"]).is_file()


LEFT_OUT: dict[str, tuple[list[str], str]] = {
    "no validation": (["trainer.limit_val_batches=0"], "callbacks.checkpoint.test_with=best"),
    "nothing kept": (["callbacks.checkpoint.save_top_k=0"], "callbacks.checkpoint.save_top_k=0"),
    "no epoch that is kept": (
        ["callbacks.checkpoint.every_n_epochs=3", "trainer.max_epochs=2"],
        "callbacks.checkpoint.every_n_epochs=3",
    ),
}


@pytest.mark.parametrize(("overrides", "start"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_best_checkpoint_that_cannot_be_there_is_said_before(
    overrides: list[str], start: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        compose("callbacks.checkpoint.test_with=best", *overrides)
    (line,) = raised.value.lines
    assert line.startswith(f"{start}: ")
    assert "set callbacks.checkpoint.test_with=last" in line


def test_a_training_on_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.limit_train_batches=0: trains and "):
        compose("trainer.limit_train_batches=0")


def test_a_best_checkpoint_that_is_missing_after_all_is_said(
    train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BestCheckpoints, "_save_topk_checkpoint", lambda *_: None)
    result = train(*SMALL, "callbacks.checkpoint.test_with=best")
    assert result["tested_checkpoint"] is None
    assert "no best checkpoint was kept, so the last weights are tested" in caplog.text


def test_a_stopped_training_says_why_after_it_was_resumed(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convtrain import pipeline

    overrides: tuple[Any, ...] = (
        *SMALL, "optimizer=sgd", "optimizer.lr=1e-12", "trainer.max_epochs=9",
        "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=0.5",
    )  # fmt: skip

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish", fail)
    with pytest.raises(KeyboardInterrupt):
        train(*overrides)
    monkeypatch.undo()
    result = pipeline.train(compose(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert result["stopped_early"].endswith("for 1 epoch (callbacks.early_stopping.patience=1)")
