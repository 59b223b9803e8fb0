"""A run that is killed, anywhere, and resumed is bit for bit the run that never was."""

import csv
import itertools
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from convtrain import pipeline
from convtrain.config.groups.trainer import Trainer
from convtrain.errors import MissingDataError
from convtrain.gradients import load
from convtrain.process.signals import Interrupted, Signals
from convtrain.run.result import Result
from convtrain.training.position import Position, saved_position
from tests.conftest import REPOSITORY, compose, compose_once, slow_but
from tests.killing import PLACES, nth_call, recorded, train_until_killed

NOT_THE_RUNS = (
    "images_per_second", "data_share_of_time", "wall_time_seconds", "seconds", "recorder",
    "gradients",
)  # fmt: skip
STAYS = ("state_dict", "optimizer_states", "lr_schedulers", "position", "global_step", "epoch")
SMALL = (
    "trainer=cpu", "callbacks.progress_bar=false", "network=lenet", "data=synthetic",
    "data.shape=[3,16,16]", "data.train_size=60", "data.test_size=12", "data.batch_size=8",
    "data.eval_batch_size=4", "trainer.max_epochs=3", "trainer.log_every_n_steps=2",
    "callbacks.checkpoint.every_n_steps=2", "logger=csv", "recorder=off", "callbacks.report=false",
    "recorder.max_overhead=1",  # what is recorded shall not depend on the time that it takes
)  # fmt: skip


def contents(run: Path) -> dict[str, Any]:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: saved[key] for key in STAYS} | {"early": saved["callbacks"].get("EarlyStopping")}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]


def record(run: Path) -> list[str]:
    """Return what was recorded of the gradients, as text, in which NaN equals NaN."""
    found = []
    for name in ("steps", "parameters", "histograms"):
        with suppress(MissingDataError):  # recorder=norms has steps alone
            rows = load(run, name).to_pylist()
            found.append(repr([{k: v for k, v in row.items() if k != "time"} for row in rows]))
    return found


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves that TensorBoard shows: steps, and values but for the speed."""
    shown = EventAccumulator(str(run), size_guidance={"scalars": 0})
    shown.Reload()
    return {
        tag: [(point.step, 0.0 if tag in NOT_THE_RUNS else point.value) for point in points]
        for tag in shown.Tags()["scalars"]
        if (points := shown.Scalars(tag))
    }


def shown(run: Path) -> list[tuple[str, int]]:
    """Return each tag with each of its steps, as often as the files of events have it."""
    found = []
    for path in run.glob("events.out.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            found += [(value.tag, event.step) for value in event.summary.value]
    return sorted(found)


def assert_same_bits(left: Any, right: Any, where: str = "checkpoint") -> None:
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype, where
        assert torch.equal(
            left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8)
        ), where
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            assert_same_bits(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_bits(one, other, f"{where}.{index}")
    else:
        assert left == right or (left != left and right != right), f"{where}: {left}, {right}"


def kept(result: Result) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in NOT_THE_RUNS}


class Whole:
    """A run that is never killed, and others to compare with it."""

    def __init__(self, folder: Path, overrides: tuple[str, ...]) -> None:
        self.folder, self.overrides = folder, overrides
        folder.mkdir(parents=True, exist_ok=True)
        with recorded(folder / "whole.samples"):
            self.result = pipeline.train(compose_once(*overrides), folder / "whole")
        self.samples = (folder / "whole.samples").read_bytes()

    def check_killed(self, place: str, number: int) -> bool:
        """Kill a run, resume it, compare; return whether it came to the place at all."""
        name = f"{place}-{number}".replace(" ", "-").replace("'", "")
        run, before = self.folder / name, self.folder / f"{name}.before"
        config = compose_once(*self.overrides)
        if not train_until_killed(config, run, before, place, number):
            return False
        self.check_resumed(name)
        return True

    def check_stopped(self, place: str, number: int) -> Position:
        """Ask a run to stop, resume it, compare; return where it stopped."""
        name = f"stopped-{place}-{number}".replace(" ", "-").replace("'", "")
        signals, (owner, method) = Signals(), PLACES[place]
        with recorded(self.folder / f"{name}.before"):
            asked = partial(setattr, signals, "received", 15)
            asking = nth_call(number, asked, getattr(owner, method))
            with patch.object(owner, method, asking), pytest.raises(Interrupted):
                pipeline.train(compose_once(*self.overrides), self.folder / name, signals=signals)
        path = self.folder / name / "checkpoints" / "last.ckpt"
        position = saved_position(torch.load(path, weights_only=True))
        assert position is not None
        samples = self.check_resumed(name)
        assert len(samples) == len(self.samples), "no batch is done twice"
        return position

    def check_resumed(self, name: str) -> bytes:
        """Resume a run and compare; return the samples that it saw in its lives."""
        config = compose_once(*self.overrides)
        run, before, after = (self.folder / f"{name}{end}" for end in ("", ".before", ".after"))
        if events := list(run.glob("events*")):  # TensorBoard orders its files by the second
            begun = max(int(path.name.split(".")[3]) for path in events)
            time.sleep(max(0, begun + 1 - time.time()))
        if list((run / "checkpoints").glob("*.ckpt")):
            config = compose(f"resume={run}")
        with recorded(after):
            result = pipeline.train(config, run)
        seen, again = (p.read_bytes() if p.exists() else b"" for p in (before, after))
        assert self.samples.startswith(seen), name
        assert self.samples.endswith(again), name
        assert len(seen) + len(again) >= len(self.samples), name
        assert kept(result) == kept(self.result), name
        assert rows(run) == rows(self.folder / "whole"), name
        assert record(run) == record(self.folder / "whole"), name
        assert curves(run) == curves(self.folder / "whole"), name
        assert shown(run) == shown(self.folder / "whole"), name
        assert not [path for path in run.iterdir() if "version" in path.name], name
        assert_same_bits(contents(run), contents(self.folder / "whole"), name)
        return seen + again


def test_each_tag_is_shown_once_at_its_step(tmp_path: Path) -> None:
    whole = Whole(tmp_path, (*SMALL, "logger=both", "trainer.val_check_interval=0.5"))
    tags = shown(whole.folder / "whole")
    assert tags
    assert len(tags) == len(set(tags))


# From the last entry of the log to result.json, what is written, and how often before.
ENDS = [
    ("test's log", 0), ("figure", 0), ("hyperparameters", 0),
    ("closing", 0), ("closing", 1), ("result", 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("max_steps", "ends"),
    [
        pytest.param(10, ENDS[-1:], id="cut short"),
        pytest.param("null", ENDS, id="whole epochs, anywhere", marks=pytest.mark.slow),
        pytest.param(10, ENDS, id="cut short, anywhere", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_at_its_end_has_its_test_once(
    tmp_path: Path, max_steps: object, ends: list[tuple[str, int]]
) -> None:
    overrides = (*SMALL, "logger=both", "trainer.max_epochs=2", f"trainer.max_steps={max_steps}")
    whole = Whole(tmp_path, overrides)
    for place, number in ends:
        assert whole.check_killed(place, number), f"it never came to {place} {number}"


PRECISIONS = get_args(Trainer.model_fields["precision"].annotation)


@pytest.mark.parametrize(
    "precision",
    [pytest.param(p, marks=[] if p == "64-true" else pytest.mark.slow) for p in PRECISIONS],
)
def test_every_precision_resumes_to_the_same_bits(precision: object, tmp_path: Path) -> None:
    overrides = (f"trainer.precision={precision}", "trainer.max_epochs=2", "optimizer=adam")
    whole = Whole(tmp_path, (*SMALL, *overrides))
    assert whole.check_killed("batch", 10)


LOGGING = """
import pytorch_lightning as pl
class Logging(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        module.log("mine/batch", float(batch.indices.sum()))
    def on_train_epoch_end(self, trainer, module):
        module.log("mine/epoch", trainer.current_epoch * 2.0)
    def on_validation_epoch_end(self, trainer, module):
        for logger in trainer.loggers:
            logger.log_metrics({"mine/validation": 0.5}, trainer.global_step)
    def on_test_epoch_end(self, trainer, module):
        module.log("mine/test", 0.25)
"""


def test_what_callbacks_log_is_in_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loggingcallback.py").write_text(LOGGING)
    monkeypatch.syspath_prepend(tmp_path)
    custom = ("trust=[loggingcallback]", "callbacks.custom=[{_target_: loggingcallback.Logging}]")
    whole = Whole(tmp_path, (*SMALL, *custom, "logger=both", "trainer.max_epochs=2"))
    metrics = whole.result["callback_metrics"]
    assert set(metrics) == {"mine/batch", "mine/epoch", "mine/validation", "mine/test"}
    assert metrics["mine/epoch"] == 2.0
    table = rows(tmp_path / "whole")
    assert {"mine/batch", "mine/test", "train/loss", "test/acc"} <= set(table[0])
    assert [row["mine/test"] for row in table if row["mine/test"]] == ["0.25"]
    assert [row["mine/epoch"] for row in table if row["mine/epoch"]] == ["0.0", "2.0"]
    assert [row["step"] for row in table if row["mine/batch"]] == [
        "1",
        "3",
        "5",
        "7",
        "9",
        "11",
        "13",
    ]
    for place, number in (("batch", 9), ("epoch's end", 1)):
        assert whole.check_killed(place, number), place


PLATEAU = (
    "scheduler=plateau", "scheduler.patience=0", "optimizer=adam", "optimizer.lr=0.02",
    "trainer.max_epochs=6",
    "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=0.5",
)  # fmt: skip
BATCHNORM = ("network=resnet8", "data.train_size=40", "trainer.max_epochs=2")


def shipped(group: str) -> list[str]:
    """Return the choices of a group; one that is added later is killed as well."""
    files = (REPOSITORY / "configs" / group).glob("[!_]*.yaml")
    return sorted(path.stem for path in files if path.stem != "custom")  # test_torch_classes.py


GROUPED = (
    *BATCHNORM, "scheduler=cosine", "optimizer=sgd_momentum", "optimizer.no_decay=[bias,norm]",
    "optimizer.layer_decay=0.8", "trainer.gradient_clip_val=1", "recorder=stats",
    "callbacks.checkpoint.every_n_steps=1",
)  # fmt: skip
MUON = "{match: 'residual_[23].*.weight', optimizer: {name: muon, lr: 0.02}}"
ADAMW = "{match: linear*, name: head, optimizer: {name: adamw, lr: 0.01, weight_decay: 0.1}}"
OWN = "{match: '*.bias', optimizer: {name: custom, _target_: torch.optim.NAdam, lr: 0.002}}"
UNFREEZES = (
    "model.freeze=[backbone]", "model.unfreeze_at_epoch=1", "scheduler=cosine",
    "callbacks.checkpoint.every_n_steps=1",
)  # fmt: skip
FROZEN = "{match: [conv2d_1.*, 'batch_norm2d_1.*'], freeze: true}"

# name: overrides, and where the run is killed, each place at its n-th time, from 0; an epoch has
# 6 batches but for batch norm's, which has 4
FAST: dict[str, tuple[tuple[str, ...], list[tuple[str, int]]]] = {
    "functional": (
        ("model=functional", "recorder=full", "logger=both"),
        [("step's end", 6), ("checkpoint's write", 200), ("epoch's end", 1)],
    ),
    "nn, adamw, cosine, accumulate 2": (
        ("model=nn", "recorder=norms", "optimizer=adamw", "scheduler=cosine",
         "trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_n_steps=1"),
        [("batch", 10), ("validation", 4)],
    ),
    "plateau, early stopping, validation often": (
        (*PLATEAU, "trainer.val_check_interval=0.25", "callbacks.early_stopping.patience=9"),
        [("validation", 11), ("batch", 9), ("test", 0)],
    ),
    "plateau, early stopping": (
        (*PLATEAU, "callbacks.checkpoint.every_n_steps=3"),
        [("batch", 7), ("test", 0)],
    ),
    "batch norm, rmsprop, accumulate 3, validation often": (
        (*BATCHNORM, "optimizer=rmsprop", "scheduler=step", "trainer.accumulate_grad_batches=3",
         "trainer.val_check_interval=0.25", "callbacks.checkpoint.every_n_steps=1"),
        [("batch", 7), ("validation's end", 5)],
    ),
    "functional, frozen, muon beside adamw beside sgd": (
        (*GROUPED, f"optimizer.groups=[{FROZEN},{MUON},{ADAMW}]", "model=functional"),
        [("batch", 6), ("step's end", 5), ("validation", 1)],
    ),
    "nn, frozen, adamw beside nadam beside sgd, plateau, accumulate 2": (
        (*GROUPED, f"optimizer.groups=[{FROZEN},{ADAMW},{OWN}]", "model=nn", "scheduler=plateau",
         "scheduler.patience=0", "trainer.accumulate_grad_batches=2"),
        [("batch", 7), ("epoch's end", 1)],
    ),
    "functional, a backbone that unfreezes": (
        (*BATCHNORM, *UNFREEZES, "model=functional", "optimizer=sgd_momentum", "recorder=full",
         "logger=both"),
        [("batch", 3), ("epoch's end", 0), ("batch", 4), ("step's end", 5)],
    ),
    "nn, a backbone that unfreezes, adamw, accumulate 3": (
        (*BATCHNORM, *UNFREEZES, "model=nn", "optimizer=adamw", "optimizer.layer_decay=0.8",
         "recorder=stats", "trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=1",
         "trainer.val_check_interval=0.25", "trainer.ema=0.9"),
        [("batch", 2), ("validation", 6), ("batch", 5), ("batch", 7)],
    ),
    "dropout, max steps": (
        ("network=convnet", "trainer.max_steps=11", "scheduler=none", "optimizer=sgd"),
        [("batch", 8), ("step's end", 10)],
    ),
}  # fmt: skip
AUGMENTS = shipped("augment")
QUICK, SLOW = (
    ("functional", "nn, adamw, cosine, accumulate 2", "dropout, max steps"),
    pytest.mark.slow,
)
DEALT = [
    *zip(FAST, itertools.cycle(AUGMENTS), strict=False),
    *zip(itertools.cycle(FAST), AUGMENTS[len(FAST) :], strict=False),
]
"""The choices of augment, dealt out among the cases."""


@pytest.mark.parametrize(
    ("case", "augment"),
    [
        pytest.param(
            FAST[name],
            augment,
            id=f"{name}-{augment}",
            marks=() if name in QUICK and at < len(FAST) else SLOW,
        )
        for at, (name, augment) in enumerate(DEALT)
    ],
)
def test_a_killed_run_ends_as_one_never_killed(
    case: tuple[tuple[str, ...], list[tuple[str, int]]], augment: str, tmp_path: Path
) -> None:
    overrides, places = case
    whole = Whole(tmp_path, (*SMALL, *overrides, f"augment={augment}"))
    for place, number in places:
        assert whole.check_killed(place, number), f"it never came to {place} {number}"


def test_every_choice_of_augmentation_is_among_them() -> None:
    assert {augment for _, augment in DEALT} == set(AUGMENTS)


TRANSFORMED = (
    "trust=[owntransform]", "augment.mixup=0.2", "augment.cutmix=1", "augment.workers=2",
    "augment.transforms=[TrivialAugmentWide,{owntransform.Shift:{most:9}}]",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("style", ["functional", "nn"])
def test_a_killed_run_with_transforms_of_ones_own_ends_as_one_never_killed(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owntransform.py").write_text(
        "import random\n"
        "from torch import nn\n"
        "class Shift(nn.Module):\n"
        "    def __init__(self, most: int) -> None:\n"
        "        super().__init__()\n"
        "        self.most = most\n"
        "    def forward(self, image):\n"
        "        return image.roll(random.randrange(self.most), -1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    whole = Whole(tmp_path / style, (*SMALL, *TRANSFORMED, f"model={style}"))
    for place, number in (("batch", 10), ("step's end", 3), ("validation", 4)):
        assert whole.check_killed(place, number)


OWN_CODE = {
    f"a layer of one's own, {style}": (
        "trust=[tests]",
        f"model={style}",
        "network.layers=[{tests.network.own.Standardised:{out_channels:4,kernel_size:3}},"
        "{tests.network.own.Scale:{by:2}},tests.network.own.Stage,tests.network.own.Frozen,"
        "tests.network.own.swish,tests.network.own.Values,Flatten,{Linear:{out_features:10}}]",
    )
    for style in ("functional", "nn")
} | {
    "a model of one's own": (
        "trust=[tests]", "model=custom", "model._target_=tests.network.own.Net", "recorder=full"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("overrides", OWN_CODE.values(), ids=OWN_CODE)
def test_a_killed_run_of_ones_own_code_ends_as_one_never_killed(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    whole = Whole(tmp_path, (*SMALL, *overrides))
    for place, number in (("batch", 10), ("step's end", 3), ("validation", 4)):
        assert whole.check_killed(place, number)


BY_THREE = (
    *SMALL, "network=resnet8", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2",
    "optimizer=rmsprop", "scheduler=cosine",
)  # fmt: skip
OFTEN = (*BY_THREE, "trainer.val_check_interval=0.25")
STOPS: dict[str, tuple[tuple[str, ...], str, int, tuple[int, int]]] = {
    "in the middle of a step": (BY_THREE, "batch", 4, (0, 6)),
    "in a validation, with gradients half accumulated": (OFTEN, "validation", 9, (0, 4)),
    "in the last validation of an epoch": (SMALL, "validation", 3, (1, 7)),
    "in the validation of the last step": (
        (*SMALL, "trainer.max_steps=10", "logger=both"),
        "validation",
        3,
        (1, 3),
    ),
    "in the validation of the last step, at an epoch's end": (
        (*SMALL, "trainer.max_steps=14"),
        "validation",
        3,
        (1, 7),
    ),
    "at the end of an epoch": (SMALL, "validation's end", 1, (1, 7)),
}


@pytest.mark.parametrize("stop", slow_but(STOPS, *list(STOPS)[1::2]))
def test_a_run_that_is_asked_to_stop_loses_nothing(stop: str, tmp_path: Path) -> None:
    overrides, place, number, stands = STOPS[stop]
    stopped = Whole(tmp_path, overrides).check_stopped(place, number)
    assert (stopped.epoch, stopped.batch) == stands


STYLES = ("functional", "nn")
MEETINGS = list(itertools.product(STYLES, (1, 2, 3), ("1.0", "0.25")))
GROUPS = ("optimizer", "scheduler", "augment", "recorder")
CHOICES = [
    (meeting, tuple(f"{group}={shipped(group)[n % len(shipped(group))]}" for group in GROUPS))
    for n, meeting in enumerate(MEETINGS)
]
# An epoch has 6 batches: a stride of 5 meets the first, the last, and the middle of the second.
EVERYWHERE = {
    "batch": 5, "step's end": 5, "validation": 7, "validation's end": 2, "epoch's end": 1,
    "checkpoint's write": 401, "checkpoint's end": 5,
}  # fmt: skip


def test_every_choice_that_is_shipped_may_be_killed_anywhere() -> None:
    chosen = {choice for _, choices in CHOICES for choice in choices}
    assert chosen == {f"{group}={name}" for group in GROUPS for name in shipped(group)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meeting", "choices"),
    CHOICES,
    ids=["-".join(map(str, (*m, *(c.partition("=")[2] for c in cs)))) for m, cs in CHOICES],
)
def test_it_may_be_killed_anywhere(
    meeting: tuple[str, int, str], choices: tuple[str, ...], tmp_path: Path
) -> None:
    style, accumulate, interval = meeting
    whole = Whole(
        tmp_path,
        (
            *SMALL, *choices, f"model={style}", f"trainer.accumulate_grad_batches={accumulate}",
            f"trainer.val_check_interval={interval}", "network=convnet", "trainer.max_epochs=2",
            "callbacks.checkpoint.every_n_steps=1", "callbacks.checkpoint.save_top_k=2",
        ),
    )  # fmt: skip
    kills = 0
    for place, stride in EVERYWHERE.items():
        number = 0
        while number < 5 * stride and whole.check_killed(place, number):
            number, kills = number + stride, kills + 1
        assert number > 0, f"it never came to {place}"
    print(f"{kills} kills")
    assert kills > 15
