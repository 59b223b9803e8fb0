"""A run's state: everybody who asks how a directory stands gets the same answer."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from convtrain.command.auto import choose_run
from convtrain.command.overrides import parse_override
from convtrain.command.resume import refuse_resumed, stored_config, why_not_anew
from convtrain.config.schema import Config
from convtrain.errors import ConvtrainError, CorruptDataError, MissingDataError
from convtrain.process.lock import locked
from convtrain.run.directory import Run
from convtrain.run.result import METRICS, metric_of, metrics_in
from convtrain.sweeps.reading import read_job, status_of
from convtrain.use.export import export_weights
from tests.conftest import compose

CONFIG, RESULT, LAST = "config.yaml", "result.json", "checkpoints/last.ckpt"
STATES: dict[str, tuple[str, ...]] = {
    "missing": (),
    "empty": (".",),
    "refused": ("overrides.yaml", "error.txt"),
    "begun": (CONFIG, "overrides.yaml", "provenance.json"),
    "failed": (CONFIG, "error.txt"),
    "killed": (CONFIG, LAST),
    "killed, older checkpoint": (CONFIG, "checkpoints/step000021.ckpt"),
    "alarm checkpoint only": (CONFIG, "checkpoints/alarm-step000000005.ckpt"),
    "finished": (CONFIG, RESULT, LAST),
    "finished, no checkpoint": (CONFIG, RESULT),
    "locked": (CONFIG, LAST, ".lock"),
    "lock left over": (CONFIG, LAST, ".lock"),
    "unreadable": (CONFIG, RESULT, LAST),
}
"""The files of each state."""

ANSWERS = {
    #                           entered begun  finished failed resumable locked
    "missing":                  (False, False, False,   False, False,    False),
    "empty":                    (False, False, False,   False, False,    False),
    "refused":                  (True,  False, False,   True,  False,    False),
    "begun":                    (True,  True,  False,   False, False,    False),
    "failed":                   (True,  True,  False,   True,  False,    False),
    "killed":                   (True,  True,  False,   False, True,     False),
    "killed, older checkpoint": (True,  True,  False,   False, True,     False),
    "alarm checkpoint only":    (True,  True,  False,   False, False,    False),
    "finished":                 (True,  True,  True,    False, True,     False),
    "finished, no checkpoint":  (True,  True,  True,    False, False,    False),
    "locked":                   (True,  True,  False,   False, True,     True),
    "lock left over":           (True,  True,  False,   False, True,     False),
    "unreadable":               (True,  True,  True,    False, True,     False),
}  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return compose()


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(state: str, config: Config, tmp_path: Path) -> Iterator[Run]:
    folder = tmp_path / "run"
    content = {CONFIG: yaml.safe_dump(config.model_dump(by_alias=True)), RESULT: '{"steps": 1}'}
    content["overrides.yaml"] = "[]"
    for name in STATES[state]:
        if name == ".":
            folder.mkdir()
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("[cut" if state == "unreadable" else content.get(name, ""))
    with ExitStack() as stack:
        if state == "locked":
            stack.enter_context(locked(folder))
        yield Run(folder)


def succeeds(call: object, *arguments: object, **named: object) -> bool:
    try:
        call(*arguments, **named)  # type: ignore[operator]
    except ConvtrainError:
        return False
    return True


def test_a_run_answers_each_question(run: Run, state: str) -> None:
    answers = (
        run.is_entered, run.is_begun, run.is_finished, run.has_failed, run.is_resumable,
        run.is_locked,
    )  # fmt: skip
    assert answers == ANSWERS[state]
    assert not (run.path / ".lock").exists() or state in ("locked", "lock left over")


def test_everybody_who_asks_agrees(
    run: Run, state: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # without logs/runs
    _, begun, finished, failed, resumable, is_locked = ANSWERS[state]
    readable = state != "unreadable"
    resumed = config.model_copy(update={"resume": str(run.path)})

    assert run.same_as(config) == (begun and readable)
    assert succeeds(run.require) == begun
    assert succeeds(refuse_resumed, resumed, run) == (begun and readable)
    assert succeeds(stored_config, str(run.path), []) == (
        begun and readable and (resumable or not finished)
    )
    saved = bool(list(run.path.glob("checkpoints/*.ckpt")))
    assert (why_not_anew(run) is None) == (not finished and not saved)
    unfinished = begun and not finished and (resumable or is_locked)
    typed = parse_override(f"hydra.run.dir='{run.path}'")
    assert typed is not None
    chosen = choose_run(config, [typed])
    assert (chosen == run.path) == (unfinished or (finished and readable))

    expected = (
        "finished" if finished else "running" if is_locked else "failed" if failed
        else "unfinished" if begun else "waiting"
    )  # fmt: skip
    assert status_of(run) == expected
    assert read_job(run.path).status == (expected if readable else "failed")

    if not finished:
        assert run.read_result() is None
        with pytest.raises(MissingDataError, match="is not finished"):
            run.finished_result()
    elif not readable:
        with pytest.raises(CorruptDataError, match=r"result\.json: damaged"):
            run.finished_result()
    else:
        assert run.finished_result() == {"steps": 1}
    with pytest.raises(MissingDataError if not saved else CorruptDataError):
        export_weights(run.path, checkpoint=Path(sorted(run.saved())[0]).stem if saved else "last")


def test_a_result_of_an_older_version_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.result.write_text(
        '{"test/acc": 0.5, "val/loss": null, "not_finite": [["val/loss", "nan"]]}'
    )
    result = run.finished_result()
    assert list(metrics_in(result)) == [name for name in METRICS if name in result]
    assert metric_of(result, "test/acc") == 0.5
    assert str(metric_of(result, "val/loss")) == "nan"
    assert metric_of(result, "val/acc") is None
