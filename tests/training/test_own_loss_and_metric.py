"""A loss with a parameter and a metric of a user's own: killed, resumed, and on two devices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convtrain.assembly import make_data, make_model
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint
from tests.conftest import REPOSITORY, compose
from tests.training.test_chosen_metrics import SOURCE as METRICS
from tests.training.test_custom_losses import SOURCE as LOSSES
from tests.training.test_resume import SMALL, Whole

OWN = (
    "trust=[ownlosses,ownmetrics]", "loss=custom", "loss._target_=ownlosses.Temperature",
    "metrics=[f1,confusion]", "metrics.sureness._target_=ownmetrics.Confidence",
    "callbacks.checkpoint.monitor=val/sureness", "callbacks.checkpoint.mode=max",
)  # fmt: skip


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in (("ownlosses", LOSSES), ("ownmetrics", METRICS)):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("style", ["functional", "nn"])
def test_a_killed_run_resumes_to_the_same_bits(style: str, packages: Path) -> None:
    more = (f"model={style}", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2",
            "callbacks.checkpoint.every_n_steps=1", "recorder=norms")  # fmt: skip
    whole = Whole(packages, (*SMALL, *OWN, *more))
    assert whole.result["test/sureness"] > 0
    for place, number in (("batch", 9), ("validation", 4), ("test's log", 0)):
        assert whole.check_killed(place, number), place


@pytest.mark.slow
def test_two_devices_measure_each_image_once(packages: Path) -> None:
    run = packages / "run"
    overrides = [*SMALL, *OWN, "trainer.max_epochs=1", "data.test_size=13"]
    command = [sys.executable, str(REPOSITORY / "train.py"), *overrides, "trainer=ddp_cpu",
               "trainer.devices=2", f"hydra.run.dir={run}"]  # fmt: skip
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result, config = json.loads((run / "result.json").read_text()), compose(*overrides)
    state = load_checkpoint(Run(run).checkpoints / "last.ckpt")["state_dict"]
    assert state["loss.temperature"] != 2.0
    model, data = make_model(config).eval(), make_data(config)
    model.load_state_dict(
        {k.removeprefix("model."): t for k, t in state.items() if k.startswith("model.")}
    )
    test = data.splits.test
    with torch.no_grad():
        probabilities = model(data.normalise(test.read(torch.arange(len(test))))).softmax(1)
    confusion = torch.zeros(10, 10)
    for true, guess in zip(test.labels, probabilities.argmax(1), strict=True):
        confusion[true, guess] += 1
    assert result["test/confusion"] == confusion.tolist()
    assert result["test/sureness"] == pytest.approx(probabilities.max(1).values.mean().item())
