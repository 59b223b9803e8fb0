"""The page of a run: written at its end and by the verb, whatever the run has come to."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from convtrain.__main__ import main
from convtrain.pipeline import train
from convtrain.report import ending
from convtrain.report.page import write_report
from convtrain.run.directory import Run
from tests.browser import WIDTHS, Browser, needs_browser
from tests.conftest import QUICK, compose
from tests.pages.parsed import Parsed

SMALL = ("data.limit=200", "recorder=norms", "trainer.max_epochs=2", "logger=csv")
HEADINGS = ("How to read the result", "Curves", "Predictions", "Gradients and filters", "Time",
            "What the configuration changes", "Provenance", "What to type next")  # fmt: skip
FIGURES = ("Loss", "Accuracy", "Learning rate", "Confusion matrix", "Calibration", "By class",
           "The most confident mistakes", "Gradient norm of each layer", "Gradient flow",
           "First filters: conv2d_1", "Where the time went", "Speed of training")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("runs") / "finished"
    train(compose(*QUICK, *SMALL, "callbacks.report=true"), path, SMALL)
    return path


def of(run: Path) -> Parsed:
    """Return the page of a run; keys in it are whole, though they may be broken after a dot."""
    return Parsed((run / "report.html").read_text().replace("<wbr>", ""))


def result_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def test_a_run_ends_with_its_page(finished: Path) -> None:
    page, result = of(finished), result_of(finished)
    for part in (*HEADINGS, *FIGURES, *result["gradients"], "data.limit", "logger.tensorboard"):
        assert part in page.text, part
    assert f"{result['test/acc']:.2%}" in page.text
    assert f"{result['val/acc']:.2%}" in page.text
    assert page.leaving(finished) == []
    seconds = result["seconds"]
    assert sum(seconds[key] for key in ("start", "train", "val", "test")) <= (
        result["wall_time_seconds"] + 1e-6
    )
    assert 0 < seconds["data"] + seconds["recorder"] < seconds["train"]


def test_the_verb_writes_the_page_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = of(run)
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert len(of(run).attributes("src")) == len(
        before.attributes("src")
    )  # the same pictures, though the data is gone
    assert main(["report", str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err


def test_an_unfinished_a_failed_and_a_bare_run_have_a_page(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "result.json").unlink()
    shutil.rmtree(run / "evaluations")
    write_report(Run(run))
    page = of(run).text
    for part in ("unfinished", "The run has stored no predictions", "Loss", "resume="):
        assert part in page
    (run / "error.txt").write_text("step 3: a weight is not finite any more")
    (run / "provenance.json").write_text("{")
    write_report(Run(run))
    page = of(run).text
    for part in ("failed", "a weight is not finite", "provenance.json: damaged"):
        assert part in page
    for path in run.iterdir():
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_report(Run(run))
    page = of(run).text
    for part in ("unfinished", "nothing in metrics.csv", "has recorded no gradients"):
        assert part in page


INJECTED = "</script><script>alert(1)</script><img src=http://x.invalid onerror=alert(1)>'\"&"


def injected(finished: Path, folder: Path) -> Path:
    """Return a copy of a run in which all that users choose is a script."""
    run = Path(shutil.copytree(finished, folder / "<script>alert(2)<" / "run"))
    evaluation = json.loads((run / "evaluations" / "test.json").read_text())
    evaluation["class_names"] = [f"{INJECTED}{n}" for n in range(10)]
    (run / "evaluations" / "test.json").write_text(json.dumps(evaluation))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = config["data"]["name"] = config["optimizer"]["name"] = INJECTED
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    provenance = json.loads((run / "provenance.json").read_text())
    provenance |= {key: [INJECTED] for key in ("command", "device", "data", "platform")}
    provenance["packages"] = {INJECTED: INJECTED}
    (run / "provenance.json").write_text(json.dumps(provenance))
    result = result_of(run) | {"gradients": [INJECTED], "stopped_early": INJECTED}
    (run / "result.json").write_text(json.dumps(result))
    rows = (run / "metrics.csv").read_text().splitlines()
    cells = [f'"{INJECTED.replace(chr(34), 2 * chr(34))}"', *["1.0"] * (len(rows) - 1)]
    joined = [f"{row},{cell}" for row, cell in zip(rows, cells, strict=True)]
    (run / "metrics.csv").write_text("\n".join([*joined, ""]))
    write_report(Run(run))
    return run


def test_what_comes_from_users_is_escaped(finished: Path, tmp_path: Path) -> None:
    run = injected(finished, tmp_path)
    page = of(run)
    assert page.leaving(run) == []
    assert page.text.count("<script>alert(1)</script>") > 20


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(
    finished: Path, tmp_path: Path, browser: Browser, width: int, dark: bool
) -> None:
    for run in (finished, injected(finished, tmp_path)):
        with browser.open(run / "report.html", width=width, dark=dark) as page:
            assert page.problems() == []
            shown = page.hover("figure[data-plot]", 0.99, 0.5)
            assert shown.startswith(f"optimiser step: {result_of(run)['steps']}\n")
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert page.problems() == []


def test_a_page_that_cannot_be_written_does_not_fail_the_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the template is broken\nbeyond repair")

    monkeypatch.setattr(ending, "write_report", fail)
    monkeypatch.setattr(ending, "store_mistakes", lambda *_: None)
    with caplog.at_level(logging.WARNING, "convtrain"):
        ending.write_at_end(Run(finished), compose(*QUICK), None)
    (record,) = caplog.records
    assert "not written, RuntimeError: the template is broken" in record.getMessage()
    assert re.search(r"convtrain report \S+finished$", record.getMessage())
    assert "\n" not in record.getMessage()


def test_a_run_without_a_page_and_without_a_validation(tmp_path: Path) -> None:
    typed = ("trainer.limit_val_batches=0", "recorder=off", "data.limit=64")
    train(compose(*QUICK, *typed), tmp_path / "run", typed)
    assert not (tmp_path / "run" / "report.html").exists()
    write_report(Run(tmp_path / "run"))
    page = of(tmp_path / "run").text
    for part in ("accuracy of the test", "has stored no predictions of a test. Evaluate it"):
        assert part in page
    assert "validation accuracy" not in page
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    write_report(Run(tmp_path / "run"))
    page = of(tmp_path / "run").text
    for part in ("Confusion matrix", "confident mistakes", "Predictions on the test images"):
        assert part in page
