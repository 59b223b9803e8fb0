"""The detector on made-up series in which it is known what is wrong, and when."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convtrain.gradients.diagnosis import rules
from convtrain.gradients.diagnosis.online import Alarm, Block, Detector

NAMES = ("conv1.weight", "conv1.bias", "fc.weight", "fc.bias")
SHARES = np.array([0.6, 0.1, 0.7, 0.2])


def record(norm: Any, *, names: tuple[str, ...] = NAMES, start: int = 1, **columns: Any) -> Block:
    """Return a block with these total norms, shared out among the parameters."""
    norm = np.asarray(norm, np.float64)
    steps = len(norm)
    norms = columns.pop("norms", norm[:, None] * SHARES[: len(names)])
    given: dict[str, Any] = {
        "step": np.arange(start, start + steps),
        "norm": norm,
        "skipped": np.zeros(steps, bool),
        "nonfinite": np.zeros(steps, int),
        "first_nonfinite": np.full(steps, None),
        "loss": np.ones(steps),
        "loss_known": np.ones(steps, bool),
    }
    about_steps = {key: np.asarray(columns.pop(key)) for key in [*columns] if key in given}
    return Block(names, given | about_steps, norms, np.ones(norms.shape, bool), **columns)


def cut(block: Block, length: int) -> list[Block]:
    """Return the same steps as blocks of a length."""
    rows = [slice(start, start + length) for start in range(0, len(block.norms), length)]
    return [
        Block(
            block.names,
            {key: column[each] for key, column in block.steps.items()},
            block.norms[each],
            block.present[each],
            block.images[each],
        )
        for each in rows
    ]


def look(blocks: list[Block], **settings: Any) -> list[Alarm]:
    detector = Detector(**settings)
    return [alarm for block in blocks for alarm in detector.look(block)]


def noisy(steps: int, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Return norms that decay to a tenth, with log-normal noise."""
    noise = np.random.default_rng(seed).normal(0, spread, steps)
    return 3 * np.exp(-np.log(10) * np.arange(steps) / steps + noise)


def found(alarms: list[Alarm]) -> list[tuple[str, int, str | None]]:
    assert all("\n" not in alarm.message for alarm in alarms)
    return [(alarm.kind, alarm.step, alarm.parameter) for alarm in alarms]


# --- of all gradients together --------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.05, 0.4, 0.9])
def test_nothing_is_wrong_with_noisy_decaying_norms(spread: float) -> None:
    for seed in range(20):
        assert look(cut(record(noisy(400, seed, spread)), 50)) == [], f"seed {seed}"


def test_an_explosion_is_found_at_its_step() -> None:
    norm = noisy(300)
    norm[172] *= 200
    (alarm,) = look(cut(record(norm), 50))
    assert (alarm.kind, alarm.step, alarm.parameter) == ("exploding", 173, None)
    assert f"gradient norm {norm[172]:.3g}" in alarm.message
    assert "most in fc.weight" in alarm.message
    assert "optimizer.lr" in alarm.message
    assert "trainer.gradient_clip_val=" in alarm.message


def test_training_that_explodes_in_its_first_steps_is_found_without_warm_up() -> None:
    # LeNet with optimizer.lr=3 on MNIST, as measured.
    assert found(look([record([0.28, 0.48, 9.64, 375.6, 5e4, 6.7e9])])) == [("exploding", 4, None)]


STARTS = {
    "a rise over three decades": np.geomspace(1e-3, 1, 200),
    "a plateau, then ten steps to forty times as much": np.concatenate(
        [np.full(60, 0.3), np.geomspace(0.3, 12, 10), np.full(60, 2.0)]
    ),
    "a linear warm-up": np.linspace(0.01, 10, 300),
}


@pytest.mark.parametrize("norm", STARTS.values(), ids=STARTS)
def test_a_start_that_grows_by_design_is_no_explosion(norm: np.ndarray) -> None:
    assert look(cut(record(norm), 50)) == []


def test_a_ripple_on_a_flat_series_is_no_explosion() -> None:
    norm = np.ones(200)
    norm[150] = 5
    assert look([record(norm)]) == []
    norm[160] = 20
    assert found(look([record(norm)])) == [("exploding", 161, None)]


def test_a_hard_batch_late_in_training_is_no_explosion_where_the_start_was_larger() -> None:
    norm = np.concatenate([np.full(50, 3.0), np.full(250, 0.03)])
    norm[280] = 0.9
    assert look([record(norm)]) == []


@pytest.mark.parametrize(
    ("warmup", "expected"), [(50, [101, 111, 131]), (100, [101, 111, 131, 171])]
)
def test_an_explosion_that_lasts_is_repeated_after_ever_longer_waits_until_it_is_the_usual(
    warmup: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BASELINE_WARMUP_STEPS", warmup)
    norm = np.concatenate([np.ones(100), np.full(400, 1e3)])
    alarms = look(cut(record(norm), 50), patience_steps=10)
    assert [alarm.step for alarm in alarms] == expected


def test_nan_is_told_with_step_parameter_number_and_images() -> None:
    norm = noisy(100)
    bad = np.zeros(100, int)
    bad[41:] = 3
    first = [None] * 41 + ["fc.weight"] * 59
    images = tuple(tuple(range(row, row + 32)) for row in range(100))
    norm[41:] = np.nan
    block = record(norm, nonfinite=bad, first_nonfinite=first, images=images)
    (alarm,) = look(cut(block, 30))
    assert found([alarm]) == [("nonfinite", 42, "fc.weight")]
    assert "in the gradient of fc.weight and 2 others, at images 41, 42, 43" in alarm.message
    assert "(32 in all)" in alarm.message


def test_what_the_scaler_skipped_is_silent_and_leaves_no_trace() -> None:
    norm, skipped = noisy(300), np.zeros(300, bool)
    skipped[[0, 1, 2, 150, 299]] = True
    with_skips = np.where(skipped, np.inf, norm)
    block = record(
        with_skips,
        skipped=skipped,
        nonfinite=np.where(skipped, 4, 0),
        first_nonfinite=["conv1.weight" if s else None for s in skipped],
    )
    assert look(cut(block, 50)) == []
    detector, without = Detector(), Detector()
    detector.look(block)
    without.look(record(norm[~skipped]))
    assert detector.state_dict()["usual"] == without.state_dict()["usual"]


# --- of one parameter -----------------------------------------------------------------------------


def test_a_layer_vanishes_beside_the_last_one() -> None:
    block = record(noisy(250))
    block.norms[60:, :2] *= 1e-3
    (alarm,) = look(cut(block, 50))
    assert found([alarm]) == [("vanishing", 160, "conv1")]
    assert (
        "conv1: gradient norm below 0.01x the last layer's in 100 recorded steps" in alarm.message
    )
    assert "BatchNorm2d" in alarm.message


def test_a_bias_without_effect_beside_its_weight_is_told() -> None:
    block = record(noisy(250))
    block.norms[60:, 1] *= 1e-9
    (alarm,) = look(cut(block, 50))
    assert found([alarm]) == [("negligible", 160, "conv1.bias")]
    assert "write bias: false" in alarm.message


def test_a_dead_parameter_is_told_once_and_again_only_after_it_lived() -> None:
    block = record(noisy(500))
    for start, end in ((20, 130), (132, 242), (244, 354)):
        block.norms[start:end, 1] = 0
    alarms = look(cut(block, 64))
    assert found(alarms) == [("dead", step, "conv1.bias") for step in (120, 232, 344)]
    assert "exactly zero in 100 recorded steps" in alarms[0].message


def test_a_parameter_that_loses_its_gradient_is_dead_no_longer() -> None:
    block = record(noisy(500))
    block.norms[:110, 1] = 0
    block.norms[110:, 1] = np.nan
    block.present[110:, 1] = False
    assert found(look(cut(block, 50))) == [("dead", 100, "conv1.bias")]


def test_where_all_gradients_are_zero_the_loss_is_in_question() -> None:
    block = record(np.zeros(120))
    (alarm,) = look([block])
    assert found([alarm]) == [("no_gradient", 100, None)]
    assert "does the loss depend on the weights?" in alarm.message


def test_many_dead_parameters_make_one_line() -> None:
    names = tuple(f"layer{number}.weight" for number in range(20))
    norms = np.ones((120, 20))
    norms[:, :12] = 0
    block = record(np.ones(120), names=names, norms=norms)
    (alarm,) = look([block])
    assert found([alarm]) == [("dead", 100, "layer0.weight")]
    assert "12 of 20 parameters, such as layer0.weight and layer11.weight" in alarm.message


def test_dead_filters_are_named() -> None:
    zero = np.zeros(16, bool)
    zero[[0, 4, 7]] = True
    blocks = [record(np.ones(50), start=start) for start in (1, 51, 101)]
    detector, alarms = Detector(), []
    for block, mask in zip(blocks, (zero, zero | np.eye(16, dtype=bool)[9], zero), strict=True):
        alarms += detector.look(replace(block, zero_filters={"conv1.weight": mask}))
    assert found(alarms) == [("dead", 100, "conv1.weight")]
    assert (
        "3 of 16 filters of conv1.weight (0, 4, 7): gradient exactly zero in 100 recorded steps"
        in alarms[0].message
    )


def test_a_convolution_without_living_filters_is_told_of_once_as_a_parameter() -> None:
    block = record(np.ones(100), zero_filters={"conv1.weight": np.ones(16, bool)})
    block.norms[:, 0] = 0
    assert found(look([block])) == [("dead", 100, "conv1.weight")]


def test_weights_that_never_move_are_told_of_and_moving_ones_are_not() -> None:
    detector, alarms = Detector(), []
    for number in range(4):
        # These move, stay, stay without a gradient to move them, and were once unknown.
        marks = np.array([float(number), 5, 7, np.nan if number == 1 else 9])
        block = record(np.ones(50), start=1 + 50 * number, fingerprints=marks)
        block.present[:, 2] = False
        block.norms[:, 2] = np.nan
        alarms += detector.look(block)
    assert found(alarms) == [("still", 150, "conv1.bias"), ("still", 200, "fc.bias")]
    assert "although they had a gradient, in 100 recorded steps" in alarms[0].message


@pytest.mark.parametrize("value", [np.nan, 0])
def test_what_has_no_gradient_is_neither_dead_nor_vanishing(value: float) -> None:
    block = record(noisy(300))
    block.present[:, 0] = False
    block.norms[:, 0] = value
    assert look(cut(block, 50)) == []


def test_thawed_parameters_may_come_in_anywhere() -> None:
    early = record(np.ones(60), names=("fc.weight", "fc.bias"))
    early.norms[:, 1] = 0
    late = record(np.ones(60), start=61)
    late.norms[:, 3] = 0  # fc.bias, now in the last place
    assert found(look([early, late])) == [("dead", 100, "fc.bias")]


# --- the state of the detector -------------------------------------------------------------------


def troubled() -> Block:
    norm = noisy(600, seed=3)
    norm[172] *= 300
    norm[420:480] *= 300  # long enough to become the usual
    block = record(norm)
    block.norms[50:, 1] = 0
    block.norms[130:, :2] *= 1e-10
    block.steps["nonfinite"][500:] = 2
    return block


@pytest.mark.parametrize("length", [1, 7, 50, 600])
def test_alarms_do_not_depend_on_how_often_the_record_is_flushed(length: int) -> None:
    kinds = [alarm.kind for alarm in look(cut(troubled(), length))]
    assert sorted(set(kinds)) == ["dead", "exploding", "nonfinite", "vanishing"]
    assert look(cut(troubled(), length)) == look(cut(troubled(), 25))


def test_a_detector_that_was_saved_midway_goes_on_as_if_it_had_not_been() -> None:
    def blocks() -> list[Block]:
        zero = {"conv1.weight": np.array([True, False])}
        marks = np.ones(4)
        return [
            replace(block, zero_filters=zero, fingerprints=marks) for block in cut(troubled(), 40)
        ]

    through = Detector()
    expected = [alarm for block in blocks() for alarm in through.look(block)]
    assert {alarm.kind for alarm in expected} >= {"dead", "still", "exploding", "nonfinite"}
    for stop in range(1, len(blocks())):
        first, second = Detector(), Detector()
        alarms = [alarm for block in blocks()[:stop] for alarm in first.look(block)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.state_dict() == first.state_dict()
        alarms += [alarm for block in blocks()[stop:] for alarm in second.look(block)]
        assert alarms == expected
        assert second.state_dict() == through.state_dict()


def test_no_steps_no_parameters_no_trouble() -> None:
    assert Detector().look(record([])) == []
    assert Detector().look(record(np.ones(200), names=())) == []
