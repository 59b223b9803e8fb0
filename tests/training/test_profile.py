"""The report on where the time goes, of a training that waits where it is told to."""

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convtrain import assembly
from convtrain.data.batches import Batches
from convtrain.training import profile
from tests.conftest import Train, compose

SMALL = (
    "trainer=cpu", "network=lenet", "data=synthetic", "data.shape=[3,16,16]", "data.train_size=80",
    "data.test_size=8", "data.batch_size=8", "trainer.max_epochs=1", "logger=none",
    "callbacks.progress_bar=false",
)  # fmt: skip
WAIT = 0.02  # seconds, many times what the rest of a step takes


def wait_within(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    function = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(WAIT)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize(
    ("owner", "name", "stage", "side"),
    [
        (Batches, "_batch", "making a batch", "data"),
        (torch.optim.SGD, "step", "weight update", "compute"),
        (Tensor, "backward", "backward pass", "compute"),
    ],
)
def test_the_stage_that_waits_is_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, stage: str, side: str,
) -> None:  # fmt: skip
    wait_within(monkeypatch, owner, name)
    result = train(*SMALL, "debug=profiler", "recorder=off")
    lines = (tmp_path / "run" / "profile.txt").read_text().splitlines()
    rows = {line[:24].strip(): line[24:].split() for line in lines if line}
    assert float(rows[stage][-4]) >= 8 * WAIT
    (largest,) = [k for k in rows if k.startswith("all ") and _share(rows[k][-1]) > 50]
    assert largest == f"all {side}"
    assert (result["data_share_of_time"] > 0.5) == (side == "data")


def _share(text: str) -> float:
    return float(text.removesuffix("%"))


@pytest.mark.parametrize("style", ["functional", "nn"])
def test_the_layer_that_waits_is_named(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            time.sleep(WAIT)
            return gradient

    config = compose(*SMALL, "debug=profiler", f"model={style}")
    model = assembly.make_model(config)
    slow = [name for name, _ in model.named_parameters()][2].removesuffix(".weight")
    clock = profile.LayerClock()
    task = assembly.make_task(config, model)
    calls: list[str] = []

    def delay(layer: str, output: Tensor) -> None:
        calls.append(layer)
        if layer == slow:
            time.sleep(WAIT)

    with profile.observe_outputs(model, delay), contextlib.redirect_stdout(io.StringIO()):
        clock.on_train_batch_start(None, task, None, profile.FIRST_TIMED_BATCH + 2)
        loss = task(torch.randn(4, 3, 16, 16)).sum()
        clock.on_before_backward(None, task, loss)
        loss.backward()
        clock.on_after_backward(None, task)
    assert list(clock.forward) == [layer for layer in dict.fromkeys(calls) if "." not in layer]
    assert max(clock.forward, key=lambda layer: clock.forward[layer]) == slow
    assert clock.forward[slow][0] >= WAIT
    assert all(0 < seconds < WAIT for (seconds,) in clock.backward.values())
