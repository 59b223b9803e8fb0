"""Keys of the trainer together: what the check accepts, trains."""

import itertools
import random

import pytest

from convtrain.errors import ConfigError
from convtrain.forecast import forecast
from tests.conftest import QUICK, Train, compose, slow_but

SMALL = (*QUICK, "data.limit=128", "data.batch_size=32", "callbacks.checkpoint.save_top_k=1")
# What differs between devices and processes, and torch.compile, have tests of their own.
VALUES: dict[str, list[object]] = {
    "trainer.precision": [32, "16-mixed", "bf16-mixed", "64-true"],
    "trainer.gradient_clip_val": ["null", 0.1],
    "trainer.gradient_clip_algorithm": ["norm", "value"],
    "trainer.accumulate_grad_batches": [1, 3],
    "trainer.max_steps": ["null", 2],
    "trainer.val_check_interval": ["1.0", 0.5, 1, 4],
    "trainer.limit_train_batches": ["1.0", 0.5, 3],
    "trainer.limit_val_batches": ["1.0", 0, 1],
    "trainer.limit_test_batches": ["1.0", 0, 1],
    "trainer.fast_dev_run": ["false", "true", 2],
    "trainer.log_every_n_steps": [1, 50],
    "trainer.channels_last": ["auto", "true"],
    "trainer.deterministic": ["false", "true"],
    "trainer.sync_batchnorm": ["false", "true"],
    "trainer.threads": ["null", 1],
    "trainer.profiler": ["null", "stages", "simple"],
    "optimizer": ["sgd", "adamw", "rmsprop"],
    "scheduler": ["none", "onecycle", "plateau"],
    "recorder": ["off", "norms", "full"],
}
Pair = frozenset[tuple[str, object]]


def pairs_of(row: dict[str, object]) -> set[Pair]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def rows_with_all_pairs() -> list[dict[str, object]]:
    """Return rows in which every value stands beside every value of every other key."""
    rng, rows = random.Random(1), []
    single = [[(key, value) for value in values] for key, values in VALUES.items()]
    left = {
        frozenset(pair)
        for first, second in itertools.combinations(single, 2)
        for pair in itertools.product(first, second)
    }
    while left:
        needed = dict(min((sorted(pair, key=repr) for pair in left), key=repr))
        tries = [{k: rng.choice(v) for k, v in VALUES.items()} | needed for _ in range(50)]
        rows.append(max(tries, key=lambda row: len(pairs_of(row) & left)))
        left -= pairs_of(rows[-1])
    return rows


def agree(train: Train, chosen: list[str]) -> bool:
    """Check and, if that accepts it, train; return whether it does."""
    try:
        config = compose(*SMALL, *chosen)
        forecast(config)
    except ConfigError:
        return False
    result = train(*SMALL, *chosen)
    steps = 1 if config.trainer.fast_dev_run is True else 2
    if config.trainer.accumulate_grad_batches == 1:
        assert result["steps"] >= steps
    assert result["steps"] == forecast(config).steps
    return True


ROWS = rows_with_all_pairs()
accepted: list[bool] = []


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_what_the_check_accepts_trains_for_every_pair_of_values(
    train: Train, row: dict[str, object]
) -> None:
    accepted.append(agree(train, [f"{key}={value}" for key, value in row.items()]))
    assert len(accepted) < 10 or sum(accepted) > len(accepted) / 3, "most rows are refused"


@pytest.mark.parametrize("optimizer", slow_but(["sgd", "adamw", "rmsprop"], "sgd"))
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_values_are_clipped_in_mixed_precision(
    train: Train, precision: str, optimizer: str
) -> None:
    clip = ("trainer.gradient_clip_val=0.1", "trainer.gradient_clip_algorithm=value")
    chosen = [f"optimizer={optimizer}", f"trainer.precision={precision}", *clip]
    assert agree(train, [*chosen, "trainer.max_steps=2", "logger=none"])
