"""The diagnosis of records whose trouble is known, in whatever columns a tier has."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from convtrain.gradients import load
from convtrain.gradients.diagnosis.offline import diagnose, diagnose_tables
from convtrain.gradients.reading import sampled
from convtrain.gradients.record import store as store_module
from convtrain.gradients.record.store import TABLES, Store

NAMES = ("conv1.weight", "conv2.weight", "conv3.weight", "fc.weight", "fc.bias")
EMPTY = pa.table({})


def table(kind: str, **columns: Any) -> pa.Table:
    types = TABLES[kind]
    return pa.table(
        {name: pa.array(v, types.get(name, pa.float32())) for name, v in columns.items()}
    )


def steps_of(norm: Any, **columns: Any) -> pa.Table:
    return table("steps", step=range(1, len(norm) + 1), norm=norm, **columns)


def parameters_of(norms: Any, steps: int = 100, **columns: Any) -> pa.Table:
    """Return a table in which every step has these norms, one for each of NAMES."""
    return table(
        "parameters",
        step=np.repeat(np.arange(1, steps + 1), len(NAMES)),
        parameter=list(NAMES) * steps,
        norm=np.tile(np.asarray(norms, float), steps),
        **{name: np.tile(np.asarray(v, float), steps) for name, v in columns.items()},
    )


def told(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


FLAT = np.full(100, 2.0)
EVEN = parameters_of([1, 0.5, 0.5, 2, 0.1])


def test_a_healthy_run_has_two_lines() -> None:
    norm = np.linspace(2, 1, 100)
    record = steps_of(
        norm, skipped=[False] * 100, nonfinite=[0] * 100, clip_coefficient=[1.0] * 96 + [0.5] * 4
    )
    ratios = [1e-3, 1e-3, 2e-3, 4e-3, 0.7]  # the last one is a bias
    lines = diagnose_tables(record, parameters_of([1, 0.5, 0.5, 2, 0.1], update_ratio=ratios))
    assert len(lines) == 2
    assert lines[0].startswith("Healthy: 100 steps recorded (1 to 100), none with NaN or infinity")
    assert "median gradient norm 1.5 (1.95 in the first tenth, 1.05 in the last)" in lines[0]
    assert lines[0].endswith(", largest 2 at step 1.")
    assert lines[1].startswith(
        "Gradient norm falls to 0.5x from fc (last) to conv1 (first): "
        "healthy (below 0.01x would be vanishing)."
    )
    assert "1.5e-03 of their norm" in lines[1]
    assert "4.0% of the steps were clipped" in lines[1]


@pytest.mark.parametrize("parameters", [EMPTY, EVEN], ids=["none", "norms"])
def test_a_tier_of_norms_alone_is_enough(parameters: pa.Table) -> None:
    lines = diagnose_tables(steps_of(FLAT), parameters)
    assert lines[0].startswith("Healthy: ")
    assert len(lines) == (1 if parameters is EMPTY else 2)


def test_an_empty_record_says_so() -> None:
    assert diagnose_tables(EMPTY, EMPTY) == ["No step was recorded."]
    assert diagnose_tables(steps_of([]), parameters_of([], steps=0)) == ["No step was recorded."]


def test_a_record_of_steps_without_norms_is_not_called_healthy() -> None:
    assert diagnose_tables(table("steps", step=[1, 2], nonfinite=[0, 0]), EMPTY) == [
        "2 steps recorded (1 to 2), none with NaN or infinity."
    ]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_lost_is_not_healthy_though_its_gradients_are_finite(value: float) -> None:
    loss: list[float | None] = [1.0] * 100
    loss[40] = loss[70] = value
    loss[10] = None  # not known
    overview, line = diagnose_tables(steps_of(FLAT, loss=loss), EMPTY)
    assert not overview.startswith("Healthy")
    assert line.startswith(
        f"Loss in 2 of 100 steps, first at step 41: the loss is {value}, although"
    )
    nonfinite = [0] * 100
    nonfinite[40] = nonfinite[70] = 3
    lines = diagnose_tables(steps_of(FLAT, loss=loss, nonfinite=nonfinite), EMPTY)
    assert not any(line.startswith("Loss") for line in lines), "told with the gradients"
    skipped = [number in (40, 70) for number in range(100)]
    assert diagnose_tables(steps_of(FLAT, loss=loss, skipped=skipped), EMPTY)[0].startswith(
        "Healthy"
    )


def test_nothing_but_nan_is_reported_from_either_column() -> None:
    nans = np.full(30, np.nan)
    for columns in ({}, {"nonfinite": [4] * 30, "first_nonfinite": ["fc.weight"] * 30}):
        lines = diagnose_tables(steps_of(nans, **columns), parameters_of([np.nan] * 5, steps=30))
        trouble = told(lines, "Nonfinite in 30 of 30 steps, first at step 1: NaN or infinity")
        assert ("in the gradient of fc.weight" in trouble) == bool(columns)
        assert "optimizer.lr" in trouble


def test_skips_of_the_scaler_are_counted_and_trouble_only_where_they_go_on() -> None:
    skipped = np.isin(np.arange(100), [0, 1, 2, 3, 4, 5, 6, 80])
    lines = diagnose_tables(steps_of(np.where(skipped, np.inf, 2.0), skipped=skipped), EMPTY)
    assert lines[0].startswith("Healthy: ")
    assert "8 of them skipped" in lines[0]
    lines = diagnose_tables(steps_of(FLAT, skipped=np.arange(100) % 3 == 0), EMPTY)
    assert "bf16-mixed" in told(lines, "Skipped: the loss scaler skipped 34% of the later half")


def test_explosions_are_those_of_the_detector() -> None:
    norm = FLAT.copy()
    norm[72] = 900
    exploding = told(diagnose_tables(steps_of(norm), EVEN), "Exploding")
    assert "step 73: gradient norm 900, 450 times the usual 2" in exploding


def test_a_norm_that_only_grows_is_reported() -> None:
    growing = told(diagnose_tables(steps_of(np.geomspace(0.1, 10, 100)), EVEN), "Growing")
    assert "grew to 65.8x from the first tenth of the steps to the last" in growing


def test_clipping_of_most_steps_is_reported_by_coefficient_and_by_norm() -> None:
    by_coefficient = steps_of(FLAT, clip_coefficient=[0.25] * 90 + [1.0] * 10)
    by_norm = steps_of(FLAT, clipped_norm=[0.5] * 90 + [2.0] * 10)
    for record in (by_coefficient, by_norm):
        trouble = told(
            diagnose_tables(record, EMPTY),
            "Clipped: 90% of the steps were clipped, to a median of 0.25x",
        )
        assert "trainer.gradient_clip_val=2" in trouble


def test_vanishing_layers_are_named_with_what_they_get() -> None:
    lines = diagnose_tables(steps_of(FLAT), parameters_of([1e-6, 1e-4, 0.1, 1, 0]))
    assert told(lines, "Vanishing") == (
        "Vanishing: conv1 (1e-06x), conv2 (0.0001x): gradient norm below 0.01x the last layer's in "
        "the median step; try BatchNorm2d or Residual in the network, ReLU for Sigmoid or Tanh, or "
        "init with kaiming_normal."
    )
    assert "to conv1 (first): vanishing (below 0.01x)." in lines[1]
    assert "fc.bias" in told(lines, "Dead")


def test_a_weak_layer_in_the_middle_is_named() -> None:
    lines = diagnose_tables(steps_of(FLAT), parameters_of([1, 1e-5, 1, 1, 1]))
    assert "conv2 (7.1e-06x):" in told(lines, "Vanishing")


def test_gradients_that_grow_backwards_are_told() -> None:
    lines = diagnose_tables(steps_of(FLAT), parameters_of([1e6, 1e4, 10, 1, 0.1]))
    assert "conv1 (1e+06x), conv2 (1e+04x)" in told(lines, "Exploding backwards")


def test_dead_parameters_are_named_and_a_step_without_any_gradient_kills_none() -> None:
    dead = parameters_of([0, 0, 0, 1, 1], update_ratio=[0, 0, 0, 1e-3, 1])
    lines = diagnose_tables(steps_of(FLAT), dead)
    assert "conv1.weight, conv2.weight, conv3.weight: gradient exactly zero" in told(lines, "Dead")
    assert len(lines) == 3  # that they do not move either goes without saying
    norms = np.tile([1, 0.5, 0.5, 2, 0.1], (100, 1)) * (np.arange(100) < 30)[:, None]
    idle = parameters_of([1] * 5).set_column(2, "norm", pa.array(norms.ravel(), pa.float32()))
    assert diagnose_tables(steps_of(norms.sum(1)), idle)[0].startswith("Healthy: ")
    nothing = diagnose_tables(steps_of(np.zeros(100)), parameters_of([0] * 5))
    assert told(nothing, "No gradient: all gradients are exactly zero in every step")


@pytest.mark.parametrize(("ratio", "start"), [(1e-8, "Slow"), (0.3, "Hasty")])
def test_updates_far_from_a_thousandth_are_told(ratio: float, start: str) -> None:
    even = parameters_of([1, 0.5, 0.5, 2, 0.1], update_ratio=[ratio] * 5)
    assert "optimizer.lr" in told(diagnose_tables(steps_of(FLAT), even), start)


def test_a_record_of_several_parts_is_read_in_the_order_of_the_network(tmp_path: Path) -> None:
    """Parts have dictionaries and columns of their own; what is thawed late stands first."""
    store = Store(tmp_path)
    store.append("steps", {"step": [1], "norm": [1.0]})
    store.append("steps", {"step": [2], "norm": [1.0], "skipped": [False]})
    late = {"step": [1, 1], "parameter": ["fc.weight", "fc.bias"], "norm": [0.5, 0.0]}
    store.append("parameters", late)
    whole = {"step": [2] * 5, "parameter": [*NAMES], "norm": [0.25, 1, 1, 0.5, 0.1]}
    store.append("parameters", {**whole, "update_ratio": [1e-3] * 5})
    lines = diagnose_tables(load(tmp_path, "steps"), load(tmp_path, "parameters"))
    assert len(lines) == 2
    assert "falls to 0.5x from fc (last) to conv1 (first)" in lines[1]


def test_a_dictionary_may_hold_names_without_rows() -> None:
    some = EVEN.slice(0, 3)
    plain = some.set_column(1, "parameter", pa.array(NAMES[:3]))
    assert diagnose_tables(steps_of(FLAT), some) == diagnose_tables(steps_of(FLAT), plain)


def long_record(run: Path, steps: int) -> None:
    random = np.random.default_rng(0)
    store = Store(run)
    for start in range(0, steps, 50):
        step = np.arange(start + 1, start + 51)
        norms = random.lognormal(size=(50, len(NAMES)))
        norms[:, 3] = 0  # is dead
        nonfinite = (step % 1000 == 7).astype(int)
        total = np.where(nonfinite, np.nan, np.sqrt((norms**2).sum(1)))
        names = ["conv1.weight" if n else None for n in nonfinite]
        store.append("steps", {
            "step": step, "norm": total, "nonfinite": nonfinite, "first_nonfinite": names,
            "skipped": step % 10 == 0, "clip_coefficient": np.where(step % 4 == 0, 0.5, 1.0),
        })  # fmt: skip
        store.append("parameters", {
            "step": np.repeat(step, len(NAMES)), "parameter": [*NAMES] * 50,
            "norm": norms.ravel(), "update_ratio": np.full(norms.size, 1e-3),
        })  # fmt: skip


def test_the_diagnosis_of_a_long_run_takes_the_memory_of_a_short_one_and_counts_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convtrain.gradients.record.store.ROWS_PER_PIECE", 1000)
    monkeypatch.setattr("convtrain.gradients.reading.MAX_SAMPLED_STEPS", 256)
    peaks, lines = {}, {}
    for steps in (1000, 8000):
        run = tmp_path / str(steps)
        long_record(run, steps)
        diagnose(run)  # what is made once and kept
        arrow: list[int] = []
        read = store_module._read_part
        with monkeypatch.context() as patch:
            patch.setattr(
                store_module, "_read_part",
                lambda p, r=read, a=arrow: (a.append(pa.total_allocated_bytes()), r(p))[1],
            )  # fmt: skip
            tracemalloc.start()
            lines[steps] = diagnose(run)
            peaks[steps] = tracemalloc.get_traced_memory()[1] + max(arrow) - arrow[0]
            tracemalloc.stop()
    # The paths of the parts are listed: 10 to 20 bytes a step, by the length of tmp_path. Reading
    # all would take hundreds.
    assert peaks[8000] - peaks[1000] < 7000 * 40
    (trouble,) = [line for line in lines[8000] if line.startswith("Nonfinite")]
    assert "in 8 of 8000 steps, first at step 7: " in trouble
    assert "in the gradient of conv1.weight" in trouble
    assert "800 of them skipped" in lines[8000][0]
    step = np.arange(1, 8001)
    usable = (step % 10 != 0) & (step % 1000 != 7)
    assert f"{(step[usable] % 4 == 0).mean():.1%} of the steps were clipped" in lines[8000][1]
    assert told(lines[8000], "Dead").startswith("Dead: fc.weight: ")
    whole = load(tmp_path / "8000", "steps")
    norm = whole["norm"].to_numpy()[~whole["skipped"].to_numpy(zero_copy_only=False)]
    exact = np.nanmedian(norm)
    shown = float(lines[8000][0].partition("gradient norm ")[2].split()[0])
    assert shown == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 16, 17, 1000])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_a_sample_of_steps_is_evenly_spread(
    count: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convtrain.gradients.reading.MAX_SAMPLED_STEPS", 8)
    steps = np.repeat(np.arange(1, count + 1), 2)  # each step has two rows
    parts = np.array_split(steps.reshape(-1, 2), pieces)
    found = sampled(pa.table({"step": part.ravel()}) for part in parts)
    kept = found["step"].to_pylist()[::2] if count else []
    every = kept[1] - kept[0] if len(kept) > 1 else 1
    assert len(kept) <= 8
    assert kept == list(range(1, count + 1, every))
    assert found.num_rows == 2 * len(kept)
    assert every == 1 or len(kept) > 4
