"""What a run says when it is over: each command it names can be typed."""

from pathlib import Path

import pytest

from convtrain.command.resume import stored_config
from convtrain.errors import ConfigError
from convtrain.run.report import print_report
from tests.conftest import Train, compose


@pytest.mark.parametrize("overrides", [(), ("trainer.fast_dev_run=true",)])
def test_resuming_is_offered_where_there_is_something_to_resume(
    overrides: tuple[str, ...], train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(*overrides)
    capsys.readouterr()
    print_report(result, config=compose(), run_dir=tmp_path / "run", overrides=overrides)
    offered = "resume=" in capsys.readouterr().out
    try:
        stored_config(str(tmp_path / "run"), [])
    except ConfigError:
        assert not offered
    else:
        assert offered
