"""trainer.ema: an average of the weights that validates, is tested, used and resumed."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import EMAWeightAveraging
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import convtrain
from convtrain.assembly import make_data, make_model
from convtrain.config.groups.trainer import Trainer
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.pipeline import assemble, train
from convtrain.training.callbacks.pictures import filter_grid
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.weight_average import WeightAverage
from convtrain.use.export import export_model
from tests.conftest import REPOSITORY, compose, slow_but
from tests.training.test_resume import SMALL, Whole, assert_same_bits, contents

DECAY = 0.5
TINY_NETWORK = (
    "network.layers=[{Conv2d:{out_channels:4,kernel_size:3}},BatchNorm2d,ReLU,Flatten,"
    "{Linear:{out_features:10}}]"
)
TINY = (
    "trainer=cpu", "trainer.threads=1", "callbacks.progress_bar=false", "callbacks.report=false",
    "data=synthetic",
    "data.shape=[3,8,8]", "data.train_size=48", "data.test_size=12", "data.batch_size=8",
    "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "optimizer=sgd_momentum",
    TINY_NETWORK,
    "callbacks.checkpoint.every_n_steps=1", "callbacks.checkpoint.keep_last=99", "logger=csv",
    "recorder=off", "scheduler=none",
)  # fmt: skip

State = dict[str, Tensor]


def by_hand(states: list[State], decay: float) -> State:
    """Average the weights after each step, the first of which are the initial ones."""
    average = {name: tensor.clone() for name, tensor in states[0].items()}
    for n, state in enumerate(states[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        for name, tensor in state.items():
            whole = name.endswith("num_batches_tracked")
            average[name] = tensor if whole else average[name].lerp(tensor, 1 - d)
    return average


class Bare:
    """A training without an average, and the average of its weights by hand."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "bare"
        self.result = train(compose(*TINY), self.run)
        pl.seed_everything(compose(*TINY).seed, verbose=False)
        initial = {f"model.{k}": v for k, v in make_model(compose(*TINY)).state_dict().items()}
        paths = sorted((self.run / "checkpoints").glob("step*.ckpt"))
        self.last = load_checkpoint(self.run / "checkpoints" / "last.ckpt")
        states = [load_checkpoint(path)["state_dict"] for path in paths]
        assert len(states) == 5, "the sixth step is in last.ckpt"
        self.states = [initial, *states, self.last["state_dict"]]
        self.average = by_hand(self.states, DECAY)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module", params=["nn", "functional"])
def averaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged") / str(request.param)
    train(compose(*TINY, f"trainer.ema={DECAY}", f"model={request.param}"), folder)
    return folder


def test_the_average_is_that_of_a_loop_by_hand(averaged: Path, bare: Bare) -> None:
    """Two batches of six make a step; the training itself is that without an average."""
    saved = load_checkpoint(averaged / "checkpoints" / "last.ckpt")
    assert_same_bits(dict(saved["state_dict"]), bare.average)
    trained = saved["average"]["trained"]
    assert_same_bits({**saved["state_dict"], **trained}, dict(bare.last["state_dict"]))
    assert saved["average"]["updates"] == 6
    assert_same_bits(saved["optimizer_states"], bare.last["optimizer_states"])
    result = json.loads((averaged / "result.json").read_text())
    assert result["ema"] == DECAY
    assert "ema" not in bare.result
    assert result["train/loss_epoch"] == bare.result["train/loss_epoch"]


def test_validation_and_test_measure_the_average(averaged: Path, bare: Bare) -> None:
    config = compose(*TINY, "model=nn")
    model, data = make_model(config), make_data(config)
    model.load_state_dict({k.removeprefix("model."): v for k, v in bare.average.items()})
    result = json.loads((averaged / "result.json").read_text())
    for split in ("val", "test"):
        images = getattr(data.splits, split)
        pixels = data.normalise(images.read(torch.arange(len(images))))
        with torch.no_grad():
            loss = cross_entropy(model.eval()(pixels), images.labels).item()
        assert result[f"{split}/loss"] == pytest.approx(loss, rel=1e-6)
        assert result[f"{split}/loss"] != pytest.approx(bare.result[f"{split}/loss"], rel=1e-3)


def test_what_uses_a_run_uses_the_average(averaged: Path, bare: Bare, tmp_path: Path) -> None:
    expected = {k.removeprefix("model."): v for k, v in bare.average.items()}
    assert_same_bits(dict(convtrain.load(averaged).model.state_dict()), expected)
    result = json.loads((averaged / "result.json").read_text())
    again = convtrain.evaluate(averaged)["metrics"]
    assert again == {key: result[key] for key in ("test/loss", "test/acc")}
    export_model(averaged, "safetensors", out=tmp_path / "weights.safetensors")
    from safetensors.torch import load_file

    exported = load_file(tmp_path / "weights.safetensors")
    assert_same_bits({name: exported[name] for name in expected}, expected)
    begun = assemble(compose(*TINY, f"model.weights={averaged}"), tmp_path / "next")
    assert_same_bits(dict(begun.task.model.state_dict()), expected)
    assert begun.weights is not None
    assert "of last.ckpt, an average of the weights; left over 0" in str(begun.weights["summary"])


def test_the_best_checkpoint_is_the_best_average(tmp_path: Path, bare: Bare) -> None:
    run, often = tmp_path / "run", ("trainer.val_check_interval=2", "data.limit=40")
    result = train(
        compose(*TINY, *often, f"trainer.ema={DECAY}", "callbacks.checkpoint.test_with=best",
                "callbacks.checkpoint.save_top_k=9"),
        run,
    )  # fmt: skip
    best = run / "checkpoints" / str(result["tested_checkpoint"])
    shown = dict(convtrain.load(run).model.state_dict())
    stored = load_checkpoint(best)["state_dict"]
    assert_same_bits(shown, {k.removeprefix("model."): v for k, v in stored.items()})
    again = convtrain.evaluate(run)["metrics"]
    assert again["test/loss"] == result["test/loss"]
    val = convtrain.evaluate(run, split="val")["metrics"]["val/loss"]
    rows = [r for r in (run / "metrics.csv").read_text().splitlines() if r]
    column = rows[0].split(",").index("val/loss")
    assert val == min(float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column])
    assert bare.result["test/loss"] != result["test/loss"]


EMA = (
    *SMALL, TINY_NETWORK, "data.shape=[3,8,8]", "data.train_size=40", "trainer.threads=1",
    "trainer.max_epochs=2", "trainer.ema=0.9", "trainer.accumulate_grad_batches=3",
    "callbacks.checkpoint.every_n_steps=1", "trainer.val_check_interval=0.5", "optimizer=adam",
)  # fmt: skip


class WholeAverage(Whole):
    """Compares the weights of the training, too, which ``state_dict`` does not have."""

    def check_resumed(self, name: str) -> bytes:
        samples = super().check_resumed(name)
        paths = (self.folder / n / "checkpoints" / "last.ckpt" for n in (name, "whole"))
        assert_same_bits(*(load_checkpoint(path)["average"] for path in paths))
        return samples


@pytest.fixture(scope="module", params=["nn", "functional"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WholeAverage:
    folder = tmp_path_factory.mktemp("whole") / str(request.param)
    return WholeAverage(folder, (*EMA, f"model={request.param}"))


KILLED = [
    ("batch", 5), ("step's end", 5), ("validation", 1), ("validation", 4),
    ("validation's end", 2), ("epoch's end", 1), ("checkpoint's write", 300), ("test", 0),
    ("test's log", 0), ("result", 0),
]  # fmt: skip


@pytest.mark.parametrize("where", slow_but(KILLED, KILLED[3]), ids=str)
def test_a_killed_run_ends_as_one_never_killed(where: tuple[str, int], whole: WholeAverage) -> None:
    assert whole.check_killed(*where), f"it never came to {where}"


STOPPED = [("validation", 1), ("validation", 4), ("step's end", 5), ("epoch's end", 1)]


@pytest.mark.parametrize("where", slow_but(STOPPED, STOPPED[0]), ids=str)
def test_a_run_that_is_stopped_while_it_validates_saves_both(
    where: tuple[str, int], whole: WholeAverage
) -> None:
    whole.check_stopped(*where)


@pytest.mark.slow
def test_the_filters_that_are_shown_are_the_average(tmp_path: Path) -> None:
    whole = WholeAverage(tmp_path, (*EMA, "logger=both"))
    assert whole.check_killed("figure", 0)
    content = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")["state_dict"]
    expected = filter_grid(next(iter(content.values())))
    for name in ("whole", "figure-0"):
        events = EventAccumulator(str(tmp_path / name)).Reload()
        (tag,) = (tag for tag in events.Tags()["images"] if tag.startswith("filters/"))
        newest = events.Images(tag)[-1].encoded_image_string
        shown = torch.from_numpy(np.array(Image.open(io.BytesIO(newest)))).permute(2, 0, 1)
        assert torch.equal(shown, expected), name


@pytest.mark.slow
@pytest.mark.parametrize("style", ["nn", "functional"])
def test_a_longer_training_goes_on_with_both(style: str, tmp_path: Path) -> None:
    settings = (*TINY, f"trainer.ema={DECAY}", f"model={style}")
    train(compose(*settings), tmp_path / "long")
    train(compose(*settings, "trainer.max_epochs=1"), tmp_path / "short")
    resumed = (f"resume={tmp_path / 'short'}", "trainer.max_epochs=2")
    train(compose(*resumed), tmp_path / "short", resumed)
    assert_same_bits(contents(tmp_path / "short"), contents(tmp_path / "long"))
    with pytest.raises(ConfigError, match=r"trainer\.ema"):
        compose(*resumed, "trainer.ema=0.9")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("trainer.precision=64",), ("trainer.precision=bf16-mixed",), ("network=lstm",),
        ("network=convnet", "trainer.compile=default"), ("trainer.channels_last=true",),
        ("network.parametrize={conv2d_1.weight: weight_norm}",),
        ("network.prune={conv2d_1.weight: {l1_unstructured: {amount: 0.5}}}",),
        ("network=resnet8", "model.freeze=[backbone]", "model.unfreeze_at_epoch=1"),
        ("trainer.fast_dev_run=true",), ("data.overfit_batches=2",),
        ("callbacks.checkpoint.test_with=best",), ("trainer.limit_val_batches=0",),
        ("optimizer=muon",), ("augment.mixup=0.2",), ("recorder=debug",),
    ],
    ids=str,
)  # fmt: skip
def test_it_goes_with_everything_else(more: tuple[str, ...], tmp_path: Path) -> None:
    """The training has the bits that it has without; both styles agree; evaluate repeats."""
    settings = [s for s in (*SMALL, *more) if s != "recorder=off" or "recorder=debug" not in more]
    ends = []
    for name, style, ema in (
        ("bare", "nn", "null"),
        ("nn", "nn", "0.9"),
        ("f", "functional", "0.9"),
    ):
        result = train(
            compose(*settings, "trainer.max_epochs=2", f"model={style}", f"trainer.ema={ema}"),
            tmp_path / name,
        )
        if not (saved := tmp_path / name / "checkpoints" / "last.ckpt").is_file():
            assert "fast_dev_run" in more[0]
            ends.append(({}, {}, result))
            continue
        content = load_checkpoint(saved)
        average = content.get("average", {"trained": {}})
        ends.append((content["state_dict"], average["trained"], result))
        metrics = convtrain.evaluate(tmp_path / name)["metrics"]
        assert metrics["test/loss"] == result["test/loss"], name
    (bare, _, first), (used, trained, result), (also, trained_also, other) = ends
    assert_same_bits({**used, **trained}, dict(bare))
    assert_same_bits(dict(used), dict(also))
    assert_same_bits(trained, trained_also)
    assert result["test/loss"] == other["test/loss"] != first["test/loss"]


@pytest.mark.slow
def test_two_processes_have_one_average(tmp_path: Path) -> None:
    for name, ema in (("bare", "null"), ("averaged", str(DECAY)), ("killed", str(DECAY))):
        typed = [*TINY, "trainer=ddp_cpu", f"trainer.ema={ema}", f"hydra.run.dir={tmp_path / name}"]
        subprocess.run([sys.executable, "train.py", *typed], cwd=REPOSITORY, check=True)
    ends = [load_checkpoint(tmp_path / n / "checkpoints/last.ckpt") for n in ("bare", "averaged")]
    trained = {**ends[1]["state_dict"], **ends[1]["average"]["trained"]}
    assert_same_bits(trained, dict(ends[0]["state_dict"]))
    result = json.loads((tmp_path / "averaged" / "result.json").read_text())
    again = convtrain.evaluate(tmp_path / "averaged")["metrics"]
    assert again == {key: result[key] for key in ("test/loss", "test/acc")}

    killed = tmp_path / "killed"
    for stale in [killed / "result.json", *(killed / "checkpoints").glob("*.ckpt")]:
        stale.unlink()
    saved = tmp_path / "averaged" / "checkpoints" / "step000003.ckpt"
    shutil.copy(saved, killed / "checkpoints" / "last.ckpt")
    provenance = json.loads((tmp_path / "averaged" / "provenance.json").read_text())
    (killed / "provenance.json").write_text(json.dumps(provenance))
    subprocess.run([sys.executable, "train.py", f"resume={killed}"], cwd=REPOSITORY, check=True)
    both = [load_checkpoint(tmp_path / n / "checkpoints/last.ckpt") for n in ("killed", "averaged")]
    for key in ("state_dict", "average", "optimizer_states"):
        assert_same_bits(*(dict(saved)[key] for saved in both))


# --- what is averaged -----------------------------------------------------------------------------


class Odd(nn.Module):
    """Tied weights, a mask that is infinite, and a number that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.whole = nn.Parameter(torch.tensor([3]), requires_grad=False)


def started(model: nn.Module, decay: float = 0.9) -> tuple[WeightAverage, torch.optim.Optimizer]:
    average, optimizer = WeightAverage(model, decay), torch.optim.SGD(model.parameters(), 0.1)
    average.start([optimizer])
    return average, optimizer


def saved_by(average: WeightAverage) -> dict[str, Any]:
    state = {f"model.{name}": tensor for name, tensor in average.model.state_dict().items()}
    checkpoint: dict[str, Any] = {"state_dict": state}
    average.save(checkpoint)
    return checkpoint


def test_tied_weights_masks_and_whole_numbers() -> None:
    model = Odd()
    average, optimizer = started(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    model.norm.running_mean += 1
    average.update()
    now, state = model.state_dict(), saved_by(average)["state_dict"]
    first = before["first.weight"].lerp(now["first.weight"], 9 / 11)
    assert torch.equal(state["model.first.weight"], first.lerp(now["first.weight"], 9 / 12))
    assert torch.equal(state["model.first.weight"], state["model.second.weight"])
    mean = before["norm.running_mean"].lerp(now["norm.running_mean"], 9 / 12)
    assert torch.equal(state["model.norm.running_mean"], mean)
    for name in ("mask", "frozen", "whole", "norm.num_batches_tracked"):
        assert torch.equal(state[f"model.{name}"], before[name]), name


class Replaces(nn.Module):
    """Assigns its statistics, as people write it, which replaces the buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("running_mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_mean = self.running_mean + 1
        return (x - self.running_mean) * self.scale


def test_a_buffer_that_a_layer_replaces_is_averaged_and_exchanged() -> None:
    model = Replaces()
    average, _ = started(model)
    expected = 0.0
    for n in (1, 2):
        model(torch.zeros(1))
        average.update()
        expected += (n - expected) * 9 / (10 + n)
    average.use(True)
    assert model.running_mean.item() == pytest.approx(expected)
    average.use(False)
    assert model.running_mean.item() == 2


@pytest.mark.parametrize("in_use", [False, True])
def test_a_checkpoint_has_both_whichever_the_model_has(in_use: bool) -> None:
    model = Odd()
    average, _ = started(model)
    with torch.no_grad():
        model.first.weight.add_(1)
    average.update()
    plain = saved_by(average)
    kept = {key: value.clone() for key, value in plain["average"]["trained"].items()}
    used = {key: value.clone() for key, value in plain["state_dict"].items()}
    average.use(in_use)
    content = saved_by(average)
    assert_same_bits(content["state_dict"], used)
    assert_same_bits(content["average"]["trained"], kept)
    again = WeightAverage(other := Odd(), 0.9)
    again.load(content)
    other.load_state_dict({k.removeprefix("model."): v for k, v in content["state_dict"].items()})
    again.start([])
    assert_same_bits(
        saved_by(again), {"state_dict": used, "average": {"updates": 1, "trained": kept}}
    )


def test_a_checkpoint_without_an_average_is_a_line() -> None:
    with pytest.raises(CorruptDataError, match=r"lacks average, which trainer\.ema=0\.9 needs"):
        WeightAverage(Odd(), 0.9).load({"state_dict": {}})


def test_a_callback_that_averages_as_well_is_a_line() -> None:
    mine = type("Mine", (EMAWeightAveraging,), {})()
    with pytest.raises(ConfigError, match=r"^trainer\.ema=0\.9: the callback Mine averages"):
        WeightAverage(Odd(), 0.9).start([], [mine])


def test_a_step_that_the_gradient_scaler_skips_is_not_averaged() -> None:
    model = nn.Linear(2, 1)
    average, optimizer = started(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for gradient, updates in ((torch.inf, 0), (1.0, 1)):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 2)).sum() * gradient).backward()
        scaler.step(optimizer)
        scaler.update()
        assert average.updates == updates


# --- the key --------------------------------------------------------------------------------------


def test_the_key() -> None:
    assert Trainer.model_fields["ema"].default is None
    lightnings = "callbacks.custom=[{_target_: pytorch_lightning.callbacks.EMAWeightAveraging}]"
    for overrides, line in {
        ("trainer.ema=0",): r"^trainer\.ema=0: must be greater than 0",
        ("trainer.ema=1",): r"^trainer\.ema=1: must be less than 1",
        ("trainer=fsdp", "trainer.ema=0.9"): r"^trainer\.ema=0\.9: .*divided over devices",
        ("trainer.ema=0.9", lightnings): r"trainer\.ema=0\.9 does as well; leave one",
    }.items():
        with pytest.raises(ConfigError, match=line):
            compose(*overrides)
