"""A run from end to end: what it leaves behind, and what its numbers are."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from convtrain.assembly import make_model
from convtrain.errors import ConfigError, ConvtrainError
from convtrain.gradients import load
from tests.conftest import QUICK, Train, compose, slow_but
from tests.data.test_sources import make_cifar10

NUMBERS = ("test/acc", "test/loss", "val/acc", "val/loss", "train/loss_epoch", "train/acc_epoch")


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_the_default_recipe_reaches_99_percent(train: Train) -> None:
    assert train("trainer.max_epochs=25")["test/acc"] >= 0.99


@pytest.mark.parametrize("epochs", slow_but([3, 25], 3))
def test_the_default_recipe_has_the_same_numbers_in_both_styles(train: Train, epochs: int) -> None:
    functional, nn = (
        train(f"model={style}", f"trainer.max_epochs={epochs}", name=style)
        for style in ("functional", "nn")
    )
    for key in NUMBERS:
        assert functional[key] == nn[key]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two epochs, which is only read."""
    from convtrain.pipeline import train as run

    folder = tmp_path_factory.mktemp("pipeline") / "run"
    overrides = (
        "trainer.max_epochs=2", "trainer.log_every_n_steps=5", "optimizer.lr=0.05",
        "callbacks.checkpoint.test_with=best", "trainer.threads=1",
    )  # fmt: skip
    result = run(compose(*QUICK, *overrides), folder, overrides)
    assert json.loads((folder / "result.json").read_text()) == result
    return folder


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def test_a_run_directory_holds_the_whole_truth(finished: Path) -> None:
    result = result_of(finished)
    assert {*NUMBERS, "steps", "epochs", "wall_time_seconds"} <= set(result)
    assert (result["steps"], result["epochs"]) == (42, 2)
    assert "lr: 0.05" in (finished / "config.yaml").read_text()
    assert "optimizer.lr=0.05" in (finished / "overrides.yaml").read_text()
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["seed"] == 1
    assert provenance["packages"]["torch"] == torch.__version__
    assert provenance["threads"] == torch.get_num_threads()
    assert {"git_commit", "git_clean", "device"} <= set(provenance)
    names = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert len(names) == 3
    assert names[0].startswith("best-epoch")
    assert names[1:] == ["last.ckpt", "step000021.ckpt"]


def test_metrics_csv_has_every_step_once_and_the_numbers_of_the_result(finished: Path) -> None:
    with (finished / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [int(row["step"]) for row in rows if row["train/loss"]]
    assert logged == [5, 10, 15, 20, 21, 25, 30, 35, 40, 42]
    for key in NUMBERS:
        values = [float(row[key]) for row in rows if row[key]]
        assert values[-1] == result_of(finished)[key]
    assert all(float(row["lr"]) > 0 for row in rows if row["train/loss"])


def test_tensorboard_shows_curves_images_text_and_hyperparameters(finished: Path) -> None:
    shown = events(finished)
    for tag in ("train/loss", "train/acc", "val/loss", "val/acc", "lr", "test/acc"):
        assert shown.Scalars(tag)
    assert [event.step for event in shown.Scalars("val/loss")] == [21, 42]
    result = result_of(finished)
    assert shown.Scalars("test/acc")[-1].value == pytest.approx(result["test/acc"])
    assert {"test/predictions", "filters/conv2d_1.weight"} <= set(shown.Tags()["images"])
    text = shown.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "max_epochs: 2" in text
    plugin = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(plugin).session_start_info
    assert start.hparams["optimizer.lr"].number_value == pytest.approx(0.05)
    assert start.hparams["model"].string_value == "functional"


def test_the_logged_training_loss_is_the_mean_over_the_epoch(train: Train, tmp_path: Path) -> None:
    result = train("trainer.log_every_n_steps=1", "data.batch_size=100")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]]
    sizes = [100] * 12 + [95]
    assert len(losses) == len(sizes)
    expected = sum(x * n for x, n in zip(losses, sizes, strict=True)) / sum(sizes)
    assert result["train/loss_epoch"] == pytest.approx(expected, rel=1e-9)


def test_the_test_result_is_that_of_the_saved_weights(finished: Path) -> None:
    from convtrain.assembly import make_data

    result = result_of(finished)
    config = compose("trainer=cpu", "model=nn")
    path = finished / "checkpoints" / result["tested_checkpoint"]
    weights = torch.load(path, weights_only=True)["state_dict"]
    model = make_model(config).eval()
    model.load_state_dict({key.removeprefix("model."): v for key, v in weights.items()})
    test = make_data(config).test_dataloader()
    right = total = 0
    with torch.no_grad():
        for batch in test:
            right += int((model(batch.images).argmax(1) == batch.targets).sum())
            total += len(batch.targets)
    assert total == len(test.images)
    assert result["test/acc"] == right / total


@pytest.mark.parametrize("style", slow_but(["functional", "nn"], "functional"))
def test_a_run_can_be_made_longer(train: Train, tmp_path: Path, style: str) -> None:
    constant = ("scheduler=none", f"model={style}")
    whole = train("trainer.max_epochs=2", *constant, name="whole")
    train(*constant, name="parts")
    resumed = compose(f"resume={tmp_path / 'parts'}", "trainer.max_epochs=2")
    assert resumed.scheduler.name == "none"
    from convtrain.pipeline import train as run

    longer = run(resumed, tmp_path / "parts")
    assert longer["steps"] == 42
    for key in NUMBERS:
        assert longer[key] == whole[key], key


def test_a_resumed_run_stays_the_run_it_is(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr=1: cannot change"):
        compose(f"resume={finished}", "optimizer.lr=1")


OPTIONS: dict[str, list[str]] = {
    "bf16": ["trainer.precision=bf16-mixed"],
    "float64": ["trainer.precision=64"],
    "accumulate": ["trainer.accumulate_grad_batches=3"],
    "clip by norm": ["trainer.gradient_clip_val=0.5"],
    "clip by value": ["trainer.gradient_clip_val=0.5", "trainer.gradient_clip_algorithm=value"],
    "validate often": ["trainer.val_check_interval=0.25"],
    "max steps": ["trainer.max_steps=7"],
    "adam": ["optimizer=adam"],
    "adamw": ["optimizer=adamw", "scheduler=cosine", "scheduler.warmup_epochs=0.5"],
    "rmsprop": ["optimizer=rmsprop", "scheduler=step"],
    "muon": ["optimizer=muon", "scheduler=cosine_restarts"],
    "adafactor": ["optimizer=adafactor", "scheduler=polynomial"],
    "plateau": ["scheduler=plateau", "optimizer=sgd"],
    "nll": ["loss=nll"],
    "mse": ["loss=mse"],
    "multi_margin": ["loss=multi_margin"],
    "resnet8": ["network=resnet8"],
    "torchvision": ["model=torchvision", "model.name=resnet18", "data.limit=64"],
    "augmented": ["augment=crop_flip_cutout"],
    "csv alone": ["logger=csv"],
    "no logger": ["logger=none"],
    "early stopping": ["callbacks.early_stopping.patience=1"],
    "overfit": ["debug=overfit", "trainer.max_epochs=1"],
    "profiler": ["debug=profiler"],
    "synthetic": ["data=synthetic", "data.train_size=200", "data.test_size=50"],
}


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_group_trains(train: Train, overrides: list[str]) -> None:
    result = train("data.limit=128", "logger.images=0", *overrides)
    assert result["test/loss"] == pytest.approx(result["test/loss"])  # not nan
    assert 0 <= result["test/acc"] <= 1
    if "trainer.max_steps=7" not in overrides:
        assert result["epochs"] == 1


@pytest.mark.slow
def test_overfit_learns_one_batch_by_heart(train: Train) -> None:
    result = train("debug=overfit", "trainer.max_epochs=100")
    assert result["train/acc_epoch"] == 1
    assert result["val/acc"] == 1


def test_transforms_give_both_styles_the_same_bits_with_any_number_of_workers(
    train: Train, tmp_path: Path
) -> None:
    listed = "augment.transforms=[{RandomRotation:{degrees:15}},{RandomErasing:{p:0.5}}]"
    for style, workers in (("functional", 2), ("nn", 0)):
        train(
            "data.limit=192", listed, f"augment.workers={workers}", f"model={style}",
            "augment.cutmix=1", "logger=none", "recorder=off", name=style,
        )  # fmt: skip
    functional, nn = (
        torch.load(tmp_path / style / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for style in ("functional", "nn")
    )
    assert functional.keys() == nn.keys()
    assert all(torch.equal(functional[name], nn[name]) for name in nn)


def test_early_stopping_ends_a_training_that_does_not_improve(train: Train) -> None:
    result = train(
        "optimizer=sgd", "optimizer.lr=1e-12", "scheduler=none", "trainer.max_epochs=20",
        "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=0.5",
        "data.limit=128",
    )  # fmt: skip
    assert result["epochs"] == 3


def test_fast_dev_run_writes_no_checkpoint(train: Train, tmp_path: Path) -> None:
    result = train("debug=fast_dev_run")
    assert result["steps"] == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


WRONG: dict[str, tuple[list[str], str]] = {
    "no gpu": (["trainer=gpu"], "type trainer=cpu"),
    "batch larger than the data": (["data.batch_size=5000"], "data.batch_size=5000: larger than"),
    "scores that do not match": (["network=conv2d"], "network=conv2d: the output of an image"),
    "custom callback": (
        ["callbacks.custom=[{_target_: mine.Callback}]"],
        r"mine\.Callback: not a trusted package",
    ),
    "unknown torchvision model": (["model=torchvision", "model.name=resnt"], "did you mean"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_only_building_can_tell_is_one_line(
    train: Train, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConvtrainError, match=message) as raised:
        train(*overrides)
    assert len(str(raised.value).splitlines()) == 1


def test_a_callback_of_ones_own_is_called(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owncallback.py").write_text(
        "import pytorch_lightning as pl\n"
        "from pathlib import Path\n"
        "class Touch(pl.Callback):\n"
        "    def __init__(self, path): self.path = path\n"
        "    def on_train_end(self, trainer, pl_module): Path(self.path).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "called"
    train(
        "data.limit=128", "trust=[owncallback]",
        f"callbacks.custom=[{{_target_: owncallback.Touch, path: {mark}}}]",
    )  # fmt: skip
    assert mark.exists()


def test_layers_of_ones_own_train_to_the_same_bits_in_both_styles(
    train: Train, tmp_path: Path
) -> None:
    states, records = [], []
    for style in ("functional", "nn"):
        train(
            f"model={style}", "trust=[tests]", "data.limit=192", "logger=none", "recorder=full",
            "network.layers=[{Residual: [{tests.network.own.Stage: {width: 1}, name: mine}]},"
            "tests.network.own.Scale,tests.network.own.swish,Flatten,{Linear: {out_features: 10}}]",
            name=style,
        )  # fmt: skip
        saved = tmp_path / style / "checkpoints" / "last.ckpt"
        states.append(torch.load(saved, weights_only=True)["state_dict"])
        records.append(load(tmp_path / style, "parameters").to_pylist())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert states[0]["model.scale_1.seen"] == 192
    assert records[0] == records[1]
    assert {"residual_1.body.mine.norm.weight", "scale_1.weight"} <= {
        row["parameter"] for row in records[0]
    }


def test_image_folder_trains_on_its_own_classes(train: Train, tmp_path: Path) -> None:
    from PIL import Image

    for name, colour in {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (20, 24), colour).save(tmp_path / "data" / name / f"{index}.png")
    result = train(
        "data=image_folder", f"data.root={tmp_path / 'data'}", "data.shape=[3,16,16]",
        "data.batch_size=16", "trainer.max_epochs=5",
    )  # fmt: skip
    assert result["test/acc"] == 1
    assert "red" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_fast_recipe_trains_on_a_folder_of_cifar10(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar10(tmp_path, monkeypatch)  # a hundred images of noise
    result = train(
        "experiment=cifar10_fast", f"data.root={tmp_path}", "data.batch_size=32",
        "trainer.max_epochs=2", "data.val_fraction=0.1",
    )  # fmt: skip
    assert result["parameters"] == 1_972_792
    assert result["steps"] == 2 * (90 // 32)
    assert 0 <= result["test/acc"] <= 1
