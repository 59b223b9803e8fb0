"""When to record, and how much space that takes."""

from pathlib import Path

import pytest

from convtrain.gradients.record.disk_space import (
    RecordSize,
    fit_on_disk,
    forecast_bytes,
)
from convtrain.gradients.record.schedule import Plan, describe_plan
from tests.conftest import Train
from tests.gradients.harness import EVERY, every


@pytest.mark.parametrize(
    ("n_steps", "first", "expected"),
    [(1, 0, [1, 2, 3, 4, 5, 6, 7]), (3, 0, [3, 6]), (3, 2, [1, 2, 3, 6]), (100, 1, [1]),
     (100, 0, []), (2, 100, [1, 2, 3, 4, 5, 6, 7])],
)  # fmt: skip
def test_a_sampling_is_its_list_of_steps(n_steps: int, first: int, expected: list[int]) -> None:
    sampling = every(n_steps, first)
    assert [step for step in range(1, 8) if sampling(step)] == expected
    assert sampling.count(7) == len(expected)


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "overrides",
    [
        ("recorder=norms",),
        ("recorder=norms", "recorder.flush_every_n_steps=10"),
        pytest.param(("recorder=norms", "recorder.include=[*weight]"), marks=pytest.mark.slow),
        ("recorder=stats",),
        ("recorder=full", "recorder.distributions.every_n_steps=10"),
        pytest.param(("recorder=debug",), marks=pytest.mark.slow),
        pytest.param(("recorder=norms", "network=resnet8"), marks=pytest.mark.slow),
        pytest.param(("recorder=full", "network=resnet8"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_forecast_is_within_a_fifth_of_what_is_written(
    overrides: tuple[str, ...], train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(
        *overrides, "trainer.max_steps=150", "trainer.max_epochs=100", "data.batch_size=8",
        "data.limit=1200", "logger=none", "trainer.limit_val_batches=0",
        "trainer.limit_test_batches=0", "recorder.max_overhead=1",
    )  # fmt: skip
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "gradient record" in line]
    number, unit = line.split("about ")[1].split()
    promised = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]
    size = written(tmp_path / "run" / "gradients")
    assert result["recorder"]["bytes"] == pytest.approx(size, rel=0.02)
    assert promised == pytest.approx(size, rel=0.2)


def test_the_default_takes_less_than_64_bytes_a_parameter_and_step(
    train: Train, tmp_path: Path
) -> None:
    train("trainer.max_steps=150", "data.batch_size=8", "logger=none", "trainer.max_epochs=100")
    rows = 150 * len([n for n in _parameters() if n])
    assert written(tmp_path / "run" / "gradients") / rows < 64


def _parameters() -> list[str]:
    from convtrain.assembly import make_model
    from tests.conftest import compose

    return [name for name, _ in make_model(compose()).named_parameters()]


def test_a_budget_thins_the_dearest_detail_first() -> None:
    size = RecordSize(1000, layers=60, values={f"w{i}": 20_000 for i in range(60)})
    plan = Plan(statistics=EVERY, distributions=EVERY, tensors=EVERY)
    whole = forecast_bytes(plan, size)
    thinned, forecast = fit_on_disk(plan, size, max_bytes=whole // 10)
    assert forecast <= whole // 10
    assert thinned.tensors is not None
    assert thinned.tensors.every_n_steps > 1
    assert thinned.norms == plan.norms
    assert fit_on_disk(plan, size, max_bytes=whole) == (plan, whole)
    least, _ = fit_on_disk(plan, size, max_bytes=1)
    assert least.samplings == {}
    assert describe_plan(least, plan) == (
        "norms never, statistics never, distributions never, tensors never"
    )


def test_a_budget_is_kept_by_a_run(train: Train, tmp_path: Path) -> None:
    train("recorder=full", "recorder.max_mib=0.02", "trainer.max_epochs=3", "logger=none")
    assert written(tmp_path / "run" / "gradients") < 1.25 * 0.02 * 2**20


def test_words() -> None:
    plan = Plan(statistics=every(2), distributions=every(13), tensors=every(101))
    assert describe_plan(plan) == (
        "norms every step, statistics every 2 steps, distributions every 13 steps, "
        "tensors every 101 steps"
    )
