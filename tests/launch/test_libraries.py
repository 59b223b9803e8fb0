"""What a run's log holds of libraries: what says something about this run."""

import logging
import threading
import warnings
from collections.abc import Iterator

import pytest

from convtrain.launch.libraries import quiet_libraries
from tests.conftest import Train

NOISE = (
    "litlogger", "Tip", "weights_only", "was configured so", "LeafSpec", "TPU", "HPU",
    "logging interval", "not empty",
)  # fmt: skip


@pytest.fixture
def quiet() -> Iterator[None]:
    excepthook = threading.excepthook
    with warnings.catch_warnings():
        quiet_libraries()
        yield
        logging.captureWarnings(False)
    logging.raiseExceptions = True
    threading.excepthook = excepthook


def test_the_log_of_a_run_holds_no_advertisements_and_no_repetitions(
    quiet: None, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train("data.limit=64", "trainer.max_epochs=3")
    lines = [record.getMessage() for record in caplog.records]
    assert any("max_epochs=3" in line for line in lines)  # Lightning's news are there
    assert not [line for line in lines if any(word in line for word in NOISE)]
    assert len(lines) == len(set(lines))
