"""What TensorBoard shows of a record: true steps, true times, and the numbers of the store."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convtrain.gradients import load
from convtrain.gradients.record.histograms import BINS, LOWEST
from convtrain.gradients.record.tensorboard import graph_as_markdown, image_value, log_histogram
from tests.conftest import Train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from convtrain.pipeline import train
    from tests.conftest import QUICK, compose

    found = {}
    for style in ("functional", "nn"):
        found[style] = tmp_path_factory.mktemp(style)
        overrides = ("recorder=full", "trainer.gradient_clip_val=0.5", f"model={style}")
        train(compose(*QUICK, *overrides, "data.batch_size=16"), found[style], overrides)
    return found


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance=dict.fromkeys(
        ("scalars", "histograms", "images", "tensors"), 0))  # fmt: skip
    accumulator.Reload()
    return accumulator


def test_curves_are_the_store_s_columns(runs: dict[str, Path]) -> None:
    run = runs["functional"]
    shown = events(run)
    steps = load(run, "steps").to_pydict()
    for column, tag in (
        ("norm", "gradients/norm"),
        ("clipped_norm", "gradients/norm_after_clipping"),
    ):
        scalars = shown.Scalars(tag)
        assert [s.step for s in scalars] == steps["step"]
        np.testing.assert_allclose([s.value for s in scalars], steps[column], rtol=1e-6)
        np.testing.assert_allclose([s.wall_time for s in scalars], steps["time"], atol=1e-3)
    clipped = [s for s, c in zip(steps["step"], steps["clip_coefficient"], strict=True) if c != 1]
    assert [s.step for s in shown.Scalars("gradients/clip_coefficient")] == clipped
    norms: dict[str, list[float]] = {}
    for row in load(run).to_pylist():
        norms.setdefault(row["parameter"], []).append(row["norm"])
    assert len(norms) > 5
    for name, values in norms.items():
        found = [s.value for s in shown.Scalars(f"grad_norm/{name}")]
        np.testing.assert_allclose(found, values, rtol=1e-6)


def test_both_styles_show_the_same(runs: dict[str, Path]) -> None:
    tags = {style: events(run).Tags() for style, run in runs.items()}
    assert tags["nn"] == tags["functional"]
    for table in ("steps", "parameters", "layers", "histograms"):
        rows = []
        for run in runs.values():
            found = load(run, table)
            rows.append(found.select([n for n in found.column_names if n != "time"]).to_pylist())
        assert repr(rows[0]) == repr(rows[1])


def test_histograms_filters_layers_and_the_graph_are_shown(runs: dict[str, Path]) -> None:
    shown = events(runs["functional"])
    sampled = sorted({row["step"] for row in load(runs["functional"], "layers").to_pylist()})
    assert sampled[0] == 1
    tags = shown.Tags()
    for tag in ("grad_log2_magnitude/conv2d_1.weight", "grad_log2_magnitude/linear_1.bias"):
        assert [h.step for h in shown.Histograms(tag)] == sampled
    for tag in ("filters/conv2d_1.weight", "filter_gradients/conv2d_1.weight"):
        assert set(sampled) <= {image.step for image in shown.Images(tag)}
    assert "output_grad_norm/input" in tags["scalars"]
    assert "output_grad_norm/conv2d_1" in tags["scalars"]
    (graph,) = shown.Tensors("gradients/graph/text_summary")
    text = graph.tensor_proto.string_val[0].decode()
    assert "| conv2d_1 | ConvolutionBackward0 | " in text


def test_a_long_run_s_curves_have_no_more_points_than_are_drawn(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convtrain.gradients.record.tensorboard.CURVE_POINTS", 10)
    train("data.batch_size=32", "logger=tensorboard")
    points = [s.step for s in events(tmp_path / "run").Scalars("gradients/norm")]
    count = len(load(tmp_path / "run", "steps"))
    assert count > 20
    assert 5 < len(points) <= 11
    assert points[0] == 1


def test_filters_are_pictured_only_so_often(tmp_path: Path) -> None:
    from convtrain.pipeline import train
    from tests.conftest import QUICK, compose

    overrides = ("recorder=full", "recorder.distributions.every_n_steps=1", "data.batch_size=16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convtrain.gradients.record.tensorboard.FILTER_IMAGES", 4)
        train(compose(*QUICK, *overrides, "logger=tensorboard"), tmp_path, overrides)
    pictured = [image.step for image in events(tmp_path).Images("filter_gradients/conv2d_1.weight")]
    sampled = {row["step"] for row in load(tmp_path, "layers").to_pylist()}
    assert len(sampled) > 4
    assert 2 <= len(pictured) <= 4
    assert set(pictured) <= sampled


def test_a_picture_is_the_pixels_given() -> None:
    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    shown = image_value("tag", pixels).image
    assert (shown.colorspace, shown.height, shown.width) == (3, 5, 7)
    decoded = np.asarray(Image.open(BytesIO(shown.encoded_image_string)))
    np.testing.assert_array_equal(decoded.transpose(2, 0, 1), pixels.numpy())


def test_a_histogram_keeps_its_counts_over_log2() -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[30:33] = [4, 0, 6]  # magnitudes around 2**-10
    shown: Any = log_histogram("tag", counts).histo
    left = LOWEST + 30
    assert (shown.min, shown.max, shown.num) == (left, left + 3, 10)
    assert list(shown.bucket_limit) == [left, left + 1, left + 2, left + 3]
    assert list(shown.bucket) == [0, 4, 0, 6]


def test_the_graph_is_a_table() -> None:
    text = graph_as_markdown(
        {"conv": ["ConvolutionBackward0", "AccumulateGrad"], "relu": ["ReluBackward0"]}
    )
    assert text.splitlines()[2:] == [
        "| conv | ConvolutionBackward0 | AccumulateGrad |",
        "| relu | ReluBackward0 |  |",
    ]
