"""Where a training runs: in this process, or in processes of its own."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from convtrain.config.schema import Config
from convtrain.launch import start
from convtrain.process.signals import Signals
from tests.conftest import compose

CASES: dict[str, tuple[Sequence[str], bool, bool, int]] = {
    # overrides, launched from outside, one of many jobs, processes that are started (0: here)
    "one device": ((), False, False, 0),
    "one device, job": ((), False, True, 0),
    "two devices": (("trainer=ddp_cpu",), False, False, 2),
    "two devices, job": (("trainer=ddp_cpu",), False, True, 2),
    "ddp on one device": (("trainer=ddp_cpu", "trainer.devices=1"), False, False, 0),
    "ddp on one device, job": (("trainer=ddp_cpu", "trainer.devices=1"), False, True, 1),
    "as many as there are": (("trainer=cpu", "trainer.devices=auto"), False, False, 0),
    "under torchrun": (("trainer=ddp_cpu",), True, False, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_where_a_training_runs(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overrides, launched, is_job, expected = CASES[case]
    config, started, shares = compose(*overrides), [], []

    def in_processes(count: int, *_: object) -> dict[str, int]:
        started.append(count)
        return {}

    def here(config: Config, *_: object) -> dict[str, int]:
        started.append(0)
        return {}

    monkeypatch.setattr(start, "train_in_processes", in_processes)
    monkeypatch.setattr("convtrain.pipeline.train", here)
    launcher = "torchrun" if launched else None
    monkeypatch.setattr(start, "rank_info", lambda: SimpleNamespace(launcher=launcher))
    share_cores = shares.append if is_job else None
    start.train_anywhere(config, tmp_path, [], Signals(), quiet=False, share_cores=share_cores)
    assert started == [expected]
    assert shares == ([expected] if is_job else [])
