"""The predictions at the end of a run, against plain torch on the same images."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from convtrain import pipeline
from convtrain.data.batches import Batch
from convtrain.data.images import Splits
from convtrain.run.directory import Run
from convtrain.training.callbacks import prediction_rows
from convtrain.training.callbacks.prediction_rows import PredictionRows
from tests.conftest import QUICK, Train, compose
from tests.training.test_multi_label import labelled_quadrants

KEPT = (*QUICK, "recorder=off", "callbacks.report=true")


def rows(run: Path) -> pa.Table:
    return pq.read_table(run / "evaluations" / "test.parquet")


def evaluation(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "evaluations" / "test.json").read_text())
    return read


def column(table: pa.Table, name: str) -> Tensor:
    return torch.tensor(table[name].to_pylist())


def test_each_tested_image_has_a_row_with_what_the_model_says(tmp_path: Path) -> None:
    config = compose(*KEPT, "data=digits", "network.layers=[Flatten,{Linear:{out_features:10}}]",
                     "data.eval_batch_size=100", "metrics=f1")  # fmt: skip
    parts = pipeline.assemble(config, tmp_path)
    with mock.patch.object(prediction_rows, "MAX_PENDING_LOGITS", 1500):  # of 359 x 10
        result = pipeline.train_assembled(parts)
    images = parts.data.splits.test
    with torch.no_grad():
        pixels = images.pixels
        assert isinstance(pixels, Tensor)
        probabilities = parts.task.model(parts.data.normalise(pixels)).softmax(1)
    best = probabilities.topk(5)
    table = rows(tmp_path)
    assert column(table, "index").tolist() == list(range(len(images)))
    assert column(table, "target").equal(images.labels)
    assert column(table, "predicted").equal(probabilities.argmax(1))
    assert column(table, "top_classes").equal(best.indices)
    torch.testing.assert_close(column(table, "top_probabilities"), best.values)
    torch.testing.assert_close(column(table, "probability"), best.values[:, 0])
    of_target = probabilities.gather(1, images.labels[:, None])[:, 0]
    torch.testing.assert_close(column(table, "target_probability"), of_target)
    right = column(table, "target") == column(table, "predicted")
    assert right.double().mean().item() == result["test/acc"]

    read = evaluation(tmp_path)
    assert read["metrics"] == {name: result[name] for name in result if name.startswith("test/")}
    assert (read["images"], read["checkpoint"], read["split"]) == (len(images), "last.ckpt", "test")
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    about = table.schema.metadata
    assert about[b"run_id"].decode() == read["run_id"] == provenance["run_id"]
    assert json.loads(about[b"class_names"]) == read["class_names"] == config.data.classes


def test_images_with_several_labels_have_lists(tmp_path: Path) -> None:
    train, val, test = (labelled_quadrants(n, seed=n) for n in (40, 10, 11))
    splits = Splits(train, val, test)
    overrides = ("data=synthetic", "data.shape=[3,8,8]", "data.num_classes=4", "loss=bce",
                 "network.layers=[Flatten,{Linear:{out_features:4}}]",
                 "data.batch_size=20")  # fmt: skip
    parts = pipeline.assemble(compose(*KEPT, *overrides), tmp_path, splits=splits)
    pipeline.train_assembled(parts)
    with torch.no_grad():
        logits = parts.task.model(parts.data.normalise(splits.test.read(torch.arange(11))))
    for row, scores, present in zip(
        rows(tmp_path).to_pylist(), logits.sigmoid(), splits.test.labels, strict=True
    ):
        said, true = (scores > 0.5).nonzero()[:, 0], (present > 0.5).nonzero()[:, 0]
        assert (row["predicted"], row["target"]) == (said.tolist(), true.tolist())
        assert row["probability"] == pytest.approx(scores[said].tolist())
        assert row["target_probability"] == pytest.approx(scores[true].tolist())
        assert row["top_classes"] == scores.argsort(descending=True).tolist()


def test_the_class_that_counts_is_first_among_equals() -> None:
    """In bfloat16, equal logits are frequent, and topk returns any of them."""
    logits = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0, 2.0, 2.0, 2.0], dtype=torch.bfloat16)
    collected, trainer = PredictionRows(classes=8), mock.Mock(world_size=1, is_global_zero=True)
    batch = Batch(torch.zeros(1, 1, 1, 1), torch.tensor([2]), torch.tensor([7]), 1.0)
    collected.on_test_start(trainer, mock.Mock())
    collected.on_test_batch_end(trainer, mock.Mock(), logits[None], batch, 0)
    collected.on_test_end(trainer, mock.Mock())
    (row,) = collected.table.to_pylist()
    assert (row["index"], row["predicted"], row["top_classes"][0]) == (7, 1, 1)
    assert row["probability"] == row["target_probability"] == row["top_probabilities"][4]


def test_a_model_that_does_not_classify_has_an_evaluation_without_rows(
    train: Train, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    train(*KEPT, "data=digits", "loss=sum", "network=conv2d", "data.limit=100")
    assert run.read_evaluation() is not None
    assert not run.predictions().exists()


@pytest.mark.slow
def test_two_devices_have_the_rows_of_one(tmp_path: Path) -> None:
    from convtrain.launch.start import train

    layers = "network.layers=[Flatten,{Linear:{out_features:10}}]"
    tables = []
    for name in ("ddp_cpu", "cpu"):
        # Nothing is learned, and an odd number leaves the second device an image less.
        config = compose(*KEPT, f"trainer={name}", "data=digits", layers, "optimizer.lr=1e-30",
                         "data.limit=201", "logger=csv")  # fmt: skip
        train(config, tmp_path / name)
        tables.append(rows(tmp_path / name))
    assert tables[0].num_rows == 201
    assert (
        tables[0]
        .select(["index", "target", "predicted"])
        .equals(tables[1].select(["index", "target", "predicted"]))
    )
