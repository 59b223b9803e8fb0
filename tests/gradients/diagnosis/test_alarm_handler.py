"""What happens when gradients are in trouble, and whether the layer at fault is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from convtrain.errors import TrainingError
from convtrain.gradients import load
from convtrain.gradients.record.recorder import Recorder
from convtrain.gradients.record.schedule import Plan
from tests.conftest import Train, compose

DEADLY = ("optimizer.lr=1e6", "optimizer.weight_decay=1e6")
TROUBLED = 5  # the step at which something breaks


class Breaks(nn.Module):
    """Hands its input on, but at one call what it returns, or its gradient, is not finite."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += self.training
        if self.calls < TROUBLED or not self.training:
            return input * 1.0
        if self.how == "forward":
            return torch.log(input - input)  # log of 0
        return torch.sqrt((input - input) ** 2) + input  # the gradient of sqrt at 0


def task_with(how: str, **overrides: Any) -> tuple[Any, Any]:
    from convtrain.assembly import make_data, make_task

    config = compose("trainer=cpu", "data.batch_size=32", "trainer.max_epochs=1", "alarm=off")
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    model.add_module("first", nn.Linear(64, 16))
    model.add_module("norm", nn.BatchNorm1d(16))
    model.add_module("breaks", Breaks(how))
    model.add_module("last", nn.Linear(16, 10))
    return make_task(config, model), make_data(config)


def run(how: str, run_dir: Path, alarm: Any) -> Any:
    task, data = task_with(how)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        callbacks=[Recorder(run_dir=run_dir, plan=Plan(), alarm=alarm)],
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return task


@pytest.mark.parametrize(
    ("how", "origin"),
    [("forward", "forward pass of breaks"), ("backward", "backward pass of breaks")],
)
def test_the_origin_of_a_nan_is_named_before_the_weights_are_lost(
    how: str, origin: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError) as stopped:
        run(how, tmp_path, "stop")
    message = str(stopped.value)
    assert "\n" not in message
    assert f"step {TROUBLED}: NaN or infinity in the gradient of first." in message
    assert f"first non-finite in the {origin}" in message
    assert "alarm=stop" in message
    rows = load(tmp_path, "steps").to_pylist()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["nonfinite"] > 0
    assert rows[-1]["first_nonfinite"].startswith("first.")
    (alarm,) = map(json.loads, (tmp_path / "gradients" / "alarms.jsonl").read_text().splitlines())
    assert (alarm["kind"], alarm["step"]) == ("nonfinite", TROUBLED)


def test_a_warning_lets_the_run_go_on_and_is_given_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("forward", tmp_path, "warn")
    warnings = [r for r in caplog.records if "not finite" in r.message or "NaN" in r.message]
    assert len([w for w in warnings if f"step {TROUBLED}" in w.message]) == 1
    assert len(load(tmp_path, "steps")) > TROUBLED


def test_off_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run("forward", tmp_path, "off")
    assert not [r for r in caplog.records if r.name == "convtrain" and "finite" in r.message]
    assert not (tmp_path / "gradients" / "alarms.jsonl").exists()
    assert load(tmp_path, "steps").to_pylist()[TROUBLED - 1]["nonfinite"] > 0


def test_a_checkpoint_holds_the_weights_of_before(train: Train, tmp_path: Path) -> None:
    """A learning rate that no network survives: the alarm's checkpoint still has good weights."""
    with pytest.raises(TrainingError, match="not finite any more, and the training is lost"):
        train(*DEADLY, "alarm=checkpoint", "trainer.max_steps=6", "logger=none")
    path = min((tmp_path / "run" / "checkpoints").glob("alarm-step*.ckpt"))
    step = int(path.stem.removeprefix("alarm-step"))
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == step
    weights = [t for name, t in saved["state_dict"].items() if "running" not in name]
    assert all(tensor.isfinite().all() for tensor in weights)
    rows = load(tmp_path / "run", "steps").to_pylist()
    first = next(row["step"] for row in rows if row["nonfinite"])
    assert first == step + 1


def test_a_stopped_run_says_so_in_one_line_and_keeps_its_record(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="alarm=stop: step"):
        train(*DEADLY, "alarm=stop", "logger=none")
    assert load(tmp_path / "run", "steps").to_pylist()[-1]["nonfinite"] > 0
    assert not (tmp_path / "run" / "result.json").exists()


def test_what_no_optimizer_has_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.gradients.harness import Module, fit, squares

    class Half(Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.model.get_submodule("0").parameters(), lr=0.1)

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    fit(Half(model, [torch.ones(2, 3)], squares), tmp_path)
    assert "no optimiser has model.1.weight, model.1.bias" in caplog.text
