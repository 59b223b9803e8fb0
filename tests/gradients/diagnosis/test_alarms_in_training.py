"""Every alarm is true of the steps it speaks of, and acts at the first flush that can know it."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis import alarm_handler
from convtrain.gradients.diagnosis.online import Detector
from convtrain.gradients.record.recorder import Recorder
from convtrain.gradients.record.schedule import Plan
from tests.gradients.harness import Module

PATIENCE, STEPS, TROUBLE = 10, 63, 30
RATE = 1e-6


class Net(nn.Module):
    """Two filters and two linear layers, one of which can be cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.side, self.last = nn.Conv2d(1, 3, 2), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, images: Tensor, kind: str, step: int) -> Tensor:
        """Compute a loss in which something is wrong from step TROUBLE on, or at that step."""
        troubled = step >= TROUBLE
        hidden = self.conv(images).mean((2, 3))
        if kind == "dead filters":  # one is dead in two of three steps, one from TROUBLE on
            alive = torch.tensor([1.0, float(step % 3 == 0), float(not troubled)])
            hidden = hidden * alive
        side = self.side(hidden)
        if kind in ("dead", "vanishing"):
            side = side.detach() + (side - side.detach()) * (
                1.0 if not troubled else 0.0 if kind == "dead" else 1e-12
            )
        loss = self.last(hidden + side).square().mean()
        if step == TROUBLE:
            loss = loss * {"exploding": 1e4, "nonfinite": torch.nan}.get(kind, 1.0)
            loss = loss + (torch.inf if kind == "loss" else 0.0)
        return loss


class Troubled(Module):
    def __init__(self, kind: str, steps_an_epoch: int) -> None:
        torch.manual_seed(0)
        images = [torch.randn(4, 1, 3, 3) for _ in range(steps_an_epoch)]
        super().__init__(Net(), images, lambda model, batch: model(batch, kind, self.step))
        self.kind, self.done = kind, 0
        self.by_hand: list[dict[str, Tensor]] = []

    @property
    def step(self) -> int:
        return self.global_step + 1

    def configure_optimizers(self) -> Any:
        moving = [p for name, p in self.model.named_parameters() if name != "side.weight"]
        rate = 0.0 if self.kind == "still" else RATE
        groups: list[dict[str, Any]] = [
            {"params": moving},
            {"params": [self.model.get_parameter("side.weight")], "lr": rate},
        ]
        return torch.optim.SGD(groups, lr=RATE)

    def on_after_backward(self) -> None:
        self.by_hand.append({n: p.grad.clone() for n, p in self.named_parameters()})


class Saves(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def train(
    kind: str, run: Path, alarm: Any, flush_every: int, steps_an_epoch: int
) -> tuple[Troubled, str]:
    """Train until the end, or the alarm; return the module and what was raised."""
    module = Troubled(kind, steps_an_epoch)
    recorder = Recorder(
        run_dir=run, plan=Plan(), flush_every_n_steps=flush_every, alarm=alarm, max_overhead=1
    )
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=STEPS, max_epochs=-1, logger=False,
        callbacks=[recorder, Saves(run / "epoch.ckpt")], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    try:
        trainer.fit(module)
    except TrainingError as error:
        return module, str(error)
    return module, ""


def alarms(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "gradients" / "alarms.jsonl").open()]


def first_flush(step: int, flush_every: int, steps_an_epoch: int) -> int:
    every = (flush_every, steps_an_epoch)
    return min([STEPS, *(-(-step // length) * length for length in every)])


KINDS = ("nonfinite", "loss", "exploding", "vanishing", "dead", "dead filters", "still")
FLUSHES = [(1, 21), (7, 5), (1000, 21), (50, 63)]
"""Rows between two flushes, and steps an epoch; the end of each epoch saves, and so flushes."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_handler, "Detector", partial(Detector, patience_steps=PATIENCE))
    monkeypatch.setattr("convtrain.gradients.record.zero_filters.SCAN_EVERY_N_STEPS", 8)


@pytest.mark.parametrize(("flush_every", "steps_an_epoch"), FLUSHES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_alarm_stops_the_run_at_the_first_flush_that_shows_it(
    kind: str, flush_every: int, steps_an_epoch: int, tmp_path: Path
) -> None:
    module, raised = train(kind, tmp_path, "stop", flush_every, steps_an_epoch)
    (first, *_) = alarms(tmp_path)
    assert first["kind"] == kind.split()[0]
    assert raised == f"alarm=stop: {first['message']}; alarm=warn trains on regardless"
    check_sentence(first, module)
    if kind == "nonfinite":  # before the step is done
        assert (first["step"], module.trainer.global_step) == (TROUBLE, TROUBLE - 1)
    else:
        acted = first_flush(first["step"], flush_every, steps_an_epoch)
        assert module.trainer.global_step == acted
    if kind in ("loss", "exploding"):
        assert first["step"] == TROUBLE
    if kind in ("vanishing", "dead"):
        assert first["step"] == TROUBLE + PATIENCE - 1


@pytest.mark.parametrize(("flush_every", "steps_an_epoch"), [(7, 21), (1000, 21)])
@pytest.mark.parametrize("kind", ["nonfinite", "exploding", "still"])
def test_a_checkpoint_holds_the_step_that_its_name_says(
    kind: str, flush_every: int, steps_an_epoch: int, tmp_path: Path
) -> None:
    train(kind, tmp_path, "checkpoint", flush_every, steps_an_epoch)
    first = alarms(tmp_path)[0]["step"]
    acted = first_flush(first, flush_every, steps_an_epoch)
    expected = TROUBLE - 1 if kind == "nonfinite" else acted
    paths = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    steps = [int(path.stem.removeprefix("alarm-step")) for path in paths]
    assert steps[0] == expected
    for path, step in zip(paths, steps, strict=True):
        assert torch.load(path, weights_only=True)["global_step"] == step


def check_sentence(alarm: dict[str, Any], module: Troubled) -> None:
    """Count by hand, from all gradients of the training, what an alarm says of them."""
    message, step = alarm["message"], alarm["step"]
    if not (counted := re.search(r"in (?:at least )?(\d+) recorded steps", message)):
        return
    steps = range(step - int(counted[1]), step)  # of the list of gradients, from 0
    name = alarm["parameter"]
    if "the last layer's" in message:
        for index in steps:
            norms = {n: g.norm().item() for n, g in module.by_hand[index].items()}
            of = {
                layer: np.hypot(norms[f"{layer}.weight"], norms[f"{layer}.bias"])
                for layer in (name, "model.last")
            }
            assert of[name] < 0.01 * of["model.last"]
        return
    gradients = [module.by_hand[index][name] for index in steps]
    assert len(gradients) >= PATIENCE
    if "filters of" in message:
        numbers = re.search(r"filters of [^(]* \(([\d, ]+)\):", message)
        assert numbers is not None
        for number in numbers[1].split(", "):
            assert not any(gradient[int(number)].any() for gradient in gradients)
    elif "exactly zero" in message:
        assert not any(gradient.any() for gradient in gradients)
    else:
        assert "the weights did not change" in message
        assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("steps_an_epoch", [5, 63])
def test_filters_that_are_dead_in_some_steps_alone_are_never_named(
    steps_an_epoch: int, tmp_path: Path
) -> None:
    module, _ = train("dead filters", tmp_path, "warn", 50, steps_an_epoch)
    assert len(module.by_hand) == STEPS
    named = [alarm for alarm in alarms(tmp_path) if "filters" in alarm["message"]]
    assert named
    for alarm in named:
        assert "1 of 3 filters of model.conv.weight (2): " in alarm["message"]
        check_sentence(alarm, module)
