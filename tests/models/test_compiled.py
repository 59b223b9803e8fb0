"""``trainer.compile``: the same training, with its names, its record and its resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convtrain.gradients import load
from convtrain.pipeline import assemble, train_assembled
from tests.conftest import QUICK, Train, compose
from tests.training.test_resume import SMALL, Whole, contents

COMPILED = (*SMALL, "network=convnet", "trainer.compile=default")


def test_what_a_cuda_graph_puts_out_is_kept_before_its_next_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a graph: outputs of one shape lie in the same memory, run after run."""
    marks: list[bool] = []
    expected = train("trainer.max_epochs=2", name="called")
    two = compose(*QUICK, "trainer.max_epochs=2", "trainer.compile=reduce-overhead")
    replayed = assemble(two, tmp_path / "replayed")
    model = replayed.task.model
    forward, memory = model.forward, dict[tuple[int, ...], Tensor]()

    def replay(images: Tensor) -> Tensor:
        logits = forward(images)
        held = memory.setdefault(tuple(logits.shape), torch.empty_like(logits).detach())
        held.copy_(logits.detach())
        return Held.apply(logits, held)

    monkeypatch.setattr(model, "forward", replay)
    monkeypatch.setattr(model, "_compiled_call_impl", None)
    monkeypatch.setattr(
        torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(torch.is_grad_enabled())
    )
    found = train_assembled(replayed)
    for key in ("train/loss_epoch", "train/acc_epoch", "val/acc", "val/loss", "test/acc"):
        assert found[key] == expected[key], key
    assert marks.count(True) == found["steps"]
    assert marks.count(False) > 0


class Held(torch.autograd.Function):
    """Hands out one piece of memory as if it were new, with the gradient of what was copied."""

    @staticmethod
    def forward(context: Any, scores: Tensor, held: Tensor) -> Tensor:
        return held.view_as(held)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@pytest.mark.slow
def test_compiled_it_is_the_same_training_under_the_same_names(
    train: Train, tmp_path: Path
) -> None:
    # Without dropout, whose numbers a compiled model draws in another way.
    settings = (*COMPILED, "network=resnet8", "recorder=norms", "trainer.max_epochs=1")
    results = {
        "plain": train(*settings, "trainer.compile=null", name="plain"),
        "functional": train(*settings, name="functional"),
        "nn": train(*settings, "model=nn", name="nn"),
    }
    weights = {name: contents(tmp_path / name)["state_dict"] for name in results}
    for style in ("functional", "nn"):
        assert list(weights[style]) == list(weights["plain"])
        for name, weight in weights["plain"].items():
            torch.testing.assert_close(weights[style][name], weight, rtol=1e-3, atol=1e-4)
        norms = [load(tmp_path / n, "steps").to_pydict()["norm"] for n in ("plain", style)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)
        assert results[style]["test/loss"] == pytest.approx(results["plain"]["test/loss"], rel=1e-3)


@pytest.mark.slow
def test_compiled_a_killed_run_ends_as_one_never_killed(tmp_path: Path) -> None:
    """The last batch of an epoch has a shape of its own, and here comes first after the resume."""
    whole = Whole(tmp_path, (*COMPILED, "data.drop_last=false"))
    for place, number in (("batch", 9), ("epoch's end", 0)):
        assert whole.check_killed(place, number)
