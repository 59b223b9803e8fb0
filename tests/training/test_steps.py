"""The six steps, seen from outside on real tensors."""

from itertools import chain
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from convtrain.assembly import make_data, make_model, make_task
from convtrain.data.batches import Batch
from convtrain.data.module import ImageData
from tests.conftest import QUICK, compose
from tests.data.resident import in_memory


class Recorder(pl.Callback):
    """Keeps weights before, gradients and weights after each optimiser step, and what was seen."""

    def __init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.after: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.indices: list[list[int]] = []  # of each batch
        self.steps: list[list[int]] = []  # of each optimiser step

        self._waiting: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, _: int) -> None:
        self.indices.append(batch.indices.tolist())
        self._waiting += self.indices[-1]

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.steps.append(self._waiting)
        self._waiting = []
        named = list(pl_module.model.named_parameters())
        self.before.append({n: p.detach().clone() for n, p in named})
        self.gradients.append({n: p.grad.clone() for n, p in named})
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.model.named_parameters()
        self.after.append({n: p.detach().clone() for n, p in named})


def run(*overrides: str, **trainer: Any) -> tuple[Recorder, Any]:
    config = compose(*QUICK, *overrides)
    pl.seed_everything(config.seed, verbose=False)
    data, model = make_data(config), make_model(config)
    recorder = Recorder()
    fit = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[recorder],
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 2, **trainer},
    )  # fmt: skip
    fit.fit(make_task(config, model), datamodule=data)
    return recorder, fit


@pytest.mark.parametrize("style", ["functional", "nn"])
@pytest.mark.parametrize("rate", [0.125, 0.1])
def test_sgd_is_weight_minus_learning_rate_times_gradient(style: str, rate: float) -> None:
    recorder, trainer = run(
        f"optimizer.lr={rate}",
        f"model={style}", "network=lenet", "optimizer=sgd", "scheduler=none", "data.limit=200",
        "data=synthetic", "data.shape=[1,28,28]", "data.mean=[0.5]", "data.std=[0.25]",
    )  # fmt: skip
    final = dict(trainer.lightning_module.model.named_parameters())
    weights = [*recorder.before, {n: p.detach() for n, p in final.items()}]
    assert len(recorder.gradients) == 8
    for step, gradients in enumerate(recorder.gradients):
        for name, gradient in gradients.items():
            before, after = weights[step][name], weights[step + 1][name]
            assert recorder.rates[step] == rate
            # torch multiplies and subtracts in one instruction that rounds once. Where the product
            # is exact, as for a power of two, writing the two operations out rounds once as well.
            assert torch.equal(after, torch.sub(before, gradient, alpha=rate))
            if rate == 0.125:
                assert torch.equal(after, before - rate * gradient)


def test_the_order_of_images_follows_from_seed_and_epoch_alone() -> None:
    first, _ = run("data.limit=300")
    again, _ = run("data.limit=300", "optimizer.lr=0.01", "model=nn")
    other, _ = run("data.limit=300", "seed=2")
    assert first.indices == again.indices
    assert first.indices != other.indices
    epochs = first.indices[:5], first.indices[5:]
    assert [sorted(chain.from_iterable(epoch)) for epoch in epochs] == [list(range(300))] * 2
    assert epochs[0] != epochs[1]


def test_accumulated_steps_add_up_the_batches() -> None:
    recorder, trainer = run("data.limit=256", "data.batch_size=64", accumulate_grad_batches=2)
    assert trainer.global_step == len(recorder.gradients) == 4
    assert len(recorder.indices) == 8


LINEAR = ("network.layers=[Flatten, {Linear: {out_features: 10}}]", "network=lenet")
# images, images a batch, batches a step, and the trainer's settings
ACCUMULATIONS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "whole steps": (96, 16, 3, {}),
    "a remainder": (96, 32, 2, {}),
    "a remainder of two": (96, 16, 4, {}),
    "a small last batch": (90, 16, 3, {}),
    "a small last batch alone": (70, 16, 2, {}),
    "a remainder with a small last batch": (100, 16, 4, {}),
    "fewer batches than a step": (40, 16, 4, {}),
    "cut by limit_train_batches": (96, 16, 3, {"limit_train_batches": 4}),
    "cut to a part": (100, 16, 2, {"limit_train_batches": 0.5}),
    "cut by max_steps": (96, 16, 4, {"max_steps": 3}),
}


@pytest.mark.parametrize("case", ACCUMULATIONS.values(), ids=ACCUMULATIONS)
def test_accumulated_batches_are_the_large_batch(
    case: tuple[int, int, int, dict[str, Any]],
) -> None:
    images, size, accumulate, settings = case
    overrides = (
        *LINEAR, f"data.limit={images}", f"data.batch_size={size}", "optimizer.lr=0.01",
    )  # fmt: skip
    recorder, trainer = run(*overrides, accumulate_grad_batches=accumulate, **settings)
    model, data = make_model(compose(*QUICK, *LINEAR)), trainer.datamodule
    assert isinstance(data, ImageData)
    assert len(recorder.steps) == len(recorder.gradients) == trainer.global_step >= 2
    for indices, before, gradients in zip(
        recorder.steps, recorder.before, recorder.gradients, strict=True
    ):
        model.load_state_dict(before)
        model.zero_grad()
        pixels = data.normalise(in_memory(data.splits.train)[indices])
        loss = nn.functional.cross_entropy(model(pixels), data.splits.train.labels[indices])
        loss.backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_dropout_depends_on_seed_and_step_and_not_on_what_was_drawn_before() -> None:
    plain, _ = run("data.limit=256")

    class Disturb(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            torch.rand(17)

    config = compose(*QUICK, "data.limit=256")
    pl.seed_everything(config.seed, verbose=False)
    data, model, recorder = make_data(config), make_model(config), Recorder()
    pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        callbacks=[Disturb(), recorder], enable_progress_bar=False, enable_model_summary=False,
    ).fit(make_task(config, model), datamodule=data)  # fmt: skip
    for left, right in zip(plain.gradients, recorder.gradients, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
