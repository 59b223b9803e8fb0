"""What makes a run fast, in counts: operations and copies, which no machine changes."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convtrain import assembly
from convtrain.models.build import build_model
from convtrain.models.memory import activate_in_place, lay_channels_last
from convtrain.run.commands import CONFIGS
from convtrain.training.running_metrics import RunningMetrics
from tests.conftest import REPOSITORY, compose

COPIES = ("_local_scalar_dense", "item", "nonzero", "is_nonzero")
"""Operations for which the host waits."""


class Operations(TorchDispatchMode):
    """Notes the names of all operations inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Steps(pl.Callback):
    """Notes the operations of each step of a training, from its batch to its last hook."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self._open = contextlib.ExitStack()
        self._seen = self._open.enter_context(Operations())

    def on_train_batch_end(self, *args: Any) -> None:
        self._open.close()
        self.names.append(self._seen.names)


def test_between_log_entries_no_step_waits_for_the_device(tmp_path: Path) -> None:
    config = compose(
        "trainer=cpu", "data=synthetic", "data.shape=[3,16,16]", "data.train_size=120",
        "data.test_size=10", "data.batch_size=8", "network=lenet", "recorder=off", "logger=csv",
        "trainer.max_epochs=1", "trainer.log_every_n_steps=100",
    )  # fmt: skip
    steps = Steps()
    task = assembly.make_task(config, assembly.make_model(config))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[steps], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(task, datamodule=assembly.make_data(config))
    assert len(steps.names) == 14
    for names in steps.names[1:]:
        assert not set(names) & set(COPIES)
        assert names.count("_fused_sgd_") == 1
        assert len(names) == len(steps.names[1])


def test_the_sums_of_a_step_take_two_operations_at_most() -> None:
    totals, loss = RunningMetrics(), torch.tensor(1.5, requires_grad=True)
    scores = torch.randn(6, 3, requires_grad=True)
    targets = torch.zeros(6, dtype=torch.int64)
    with Operations() as seen:
        totals.add(loss, scores, targets)
    assert len(seen.names) <= 2
    assert not set(seen.names) & set(COPIES)


def test_every_convolution_and_pooling_has_its_channels_last() -> None:
    first = {"Conv2d": {"out_channels": 4, "kernel_size": 3}}
    last = {"Conv2d": {"out_channels": 8, "kernel_size": 1}}
    for style in ("nn", "functional"):
        model = build_model(
            [first, "ReLU", {"MaxPool2d": {"kernel_size": 2}}, last], (1, 8, 8), style=style
        )
        lay_channels_last(model)
        output = model(torch.randn(2, 1, 8, 8))
        assert output.is_contiguous(memory_format=torch.channels_last)


def test_an_activation_overwrites_only_what_nothing_else_needs() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Sigmoid(), torch.nn.ReLU()
    )
    images = torch.randn(2, 1, 6, 6)
    before = [*torch.autograd.grad(model(images).sum(), list(model.parameters()))]
    activate_in_place(model)
    after = torch.autograd.grad(model(images).sum(), list(model.parameters()))
    assert [layer.inplace for layer in model if isinstance(layer, torch.nn.ReLU)] == [True, False]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_help_lists_every_group_and_its_choices_without_composing_any() -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "--help"], cwd=REPOSITORY, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0
    assert "$" not in done.stdout
    for path in CONFIGS.glob("*/[!_]*.yaml"):
        (line,) = (
            row for row in done.stdout.splitlines() if row.startswith(f"{path.parent.name}:")
        )
        assert path.stem in line
