"""The checkpoints of a run: when they are saved, which are kept, and what a resumed run does."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convtrain.errors import ConfigError, CorruptDataError, TrainingError
from convtrain.pipeline import train as run
from convtrain.training.callbacks import checkpoints
from convtrain.training.checkpoint_file import save_checkpoint
from tests.conftest import QUICK, REPOSITORY, Train, compose
from tests.training.forged import Payload, forge

# Two steps an epoch, and a validation loss that rises over the first three epochs.
TINY = ("data.limit=128", "logger=none", "scheduler=none")
BEST = "callbacks.checkpoint.test_with=best"
NUMBERS = ("test/acc", "test/loss", "val/acc", "val/loss", "train/loss_epoch", "train/acc_epoch")


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "checkpoints").iterdir())


def step_in(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


# --- when, and which ------------------------------------------------------------------------------

INTERVALS: dict[str, tuple[list[str], list[str]]] = {
    "default": ([], ["last", "step000008"]),
    "every two epochs": (["every_n_epochs=2", "keep_last=3"], ["last", "step000004", "step000008"]),
    "the end, always": (["every_n_epochs=3", "keep_last=3"], ["last", "step000006"]),
    "steps": (
        ["every_n_epochs=9", "every_n_steps=3", "keep_last=9"],
        ["last", "step000003", "step000006", "step000009"],
    ),
    "steps and epochs": (
        ["every_n_epochs=4", "every_n_steps=3", "keep_last=3"],
        ["last", "step000008", "step000009"],
    ),
    "the newest alone": (["every_n_steps=1", "keep_last=1"], ["last"]),
}


@pytest.mark.parametrize(("settings", "expected"), INTERVALS.values(), ids=INTERVALS.keys())
def test_checkpoints_are_saved_at_intervals_and_pruned(
    train: Train, tmp_path: Path, settings: list[str], expected: list[str]
) -> None:
    keys = [f"callbacks.checkpoint.{setting}" for setting in settings]
    train(*TINY, "trainer.max_epochs=5", "callbacks.checkpoint.save_top_k=0", *keys)
    assert names(tmp_path / "run") == expected
    for name in expected:
        step = 10 if name == "last" else int(name.removeprefix("step"))
        assert step_in(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") == step


def test_steps_are_those_of_the_optimiser(train: Train, tmp_path: Path) -> None:
    train(
        "data.limit=512", "logger=none", "data.batch_size=64", "trainer.max_epochs=1",
        "trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_n_steps=2",
        "callbacks.checkpoint.save_top_k=0", "callbacks.checkpoint.keep_last=9",
    )  # fmt: skip
    assert names(tmp_path / "run") == ["last", "step000002"]
    assert step_in(tmp_path / "run" / "checkpoints" / "last.ckpt") == 4


def test_minutes_are_counted_from_the_last_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is looked at once a step and once a save; each look, 20 seconds have passed."""
    now = iter(range(0, 10**6, 20))
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: next(now)))
    train(
        *TINY, "trainer.max_epochs=5", "callbacks.checkpoint.every_n_epochs=9",
        "callbacks.checkpoint.every_n_minutes=1", "callbacks.checkpoint.keep_last=9",
        "callbacks.checkpoint.save_top_k=0",
    )  # fmt: skip
    assert names(tmp_path / "run") == ["last", "step000003", "step000006", "step000009"]


def test_the_last_checkpoint_is_the_last_even_where_no_epoch_was_better(
    train: Train, tmp_path: Path
) -> None:
    train(*TINY, "trainer.max_epochs=3")
    assert step_in(tmp_path / "run" / "checkpoints" / "last.ckpt") == 6
    assert names(tmp_path / "run") == ["best-epoch000-step000002", "last", "step000004"]


def test_the_best_k_are_kept_and_their_names_can_be_typed(train: Train, tmp_path: Path) -> None:
    train("data.limit=256", "logger=csv", "trainer.max_epochs=6", "optimizer.lr=0.3",
          "callbacks.checkpoint.save_top_k=2")  # fmt: skip
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("val/loss")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    seen = {f"best-epoch{e:03d}-step{4 * (e + 1):06d}": loss for e, loss in enumerate(losses)}
    kept = [name for name in names(tmp_path / "run") if name.startswith("best")]
    assert kept == sorted(sorted(seen, key=lambda name: seen[name])[:2])
    assert not any("=" in name for name in names(tmp_path / "run"))


def test_without_validation_the_newest_are_kept(train: Train, tmp_path: Path) -> None:
    train(*TINY, "trainer.limit_val_batches=0", "trainer.max_epochs=2")
    assert names(tmp_path / "run") == ["last", "step000002"]


def test_strays_of_a_killed_save_are_swept_at_the_start(train: Train, tmp_path: Path) -> None:
    for name in ("run", "other"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / ".last.ckpt.7.tmp").touch()
    train(*TINY)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert list((tmp_path / "other" / "checkpoints").glob(".*"))


# --- going on -------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of three epochs, and the numbers it would reach after five."""
    folder = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    run(compose(*QUICK, *TINY, "trainer.max_epochs=3"), folder / "run")
    whole = run(compose(*QUICK, *TINY, "trainer.max_epochs=5"), folder / "whole")
    return folder / "run", {key: whole[key] for key in NUMBERS}


@pytest.mark.parametrize("damage", [cut, empty, flip, remove])
def test_a_resumed_run_falls_back_to_the_newest_good_checkpoint(
    damage: Callable[[Path], None],
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, parts = trained[1], tmp_path / "parts"
    folder = shutil.copytree(trained[0], parts) / "checkpoints"
    damage(folder / "last.ckpt")
    with caplog.at_level(logging.WARNING, "convtrain"):
        resumed = run(compose(f"resume={parts}", "trainer.max_epochs=5"), parts)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "convtrain"]
    assert str(folder / "last.ckpt") in line
    assert line.endswith("resuming from step000004.ckpt")
    assert len(line.splitlines()) == 1
    assert {key: resumed[key] for key in NUMBERS} == whole
    assert step_in(folder / "last.ckpt") == 10


def test_a_best_checkpoint_fallen_back_to_is_pruned_like_any_other(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    parts = shutil.copytree(trained[0], tmp_path / "parts")
    for name in ("last", "step000004"):
        flip(parts / "checkpoints" / f"{name}.ckpt")
    resumed = run(compose(f"resume={parts}", "trainer.max_epochs=5"), parts)
    assert {key: resumed[key] for key in NUMBERS} == trained[1]
    assert names(parts) == ["best-epoch004-step000010", "last", "step000008"]


def test_where_no_checkpoint_is_good_the_run_ends_with_one_line(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    parts = shutil.copytree(trained[0], tmp_path / "parts")
    for path in (parts / "checkpoints").iterdir():
        cut(path)
    with pytest.raises(CorruptDataError, match=r"no checkpoint of this run.*last\.ckpt") as raised:
        run(compose(f"resume={parts}", "trainer.max_epochs=5"), parts)
    assert len(str(raised.value).splitlines()) == 1


def test_what_has_no_checkpoint_or_is_no_run_cannot_be_resumed(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    parts = shutil.copytree(trained[0], tmp_path / "parts")
    shutil.rmtree(parts / "checkpoints")
    with pytest.raises(ConfigError, match="is finished and has no checkpoint to resume from"):
        compose(f"resume={parts}")
    with pytest.raises(ConfigError, match="does not exist; give the directory of a run"):
        compose(f"resume={tmp_path}")


def test_a_forged_checkpoint_executes_nothing_when_it_is_resumed_from(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    parts = shutil.copytree(trained[0], tmp_path / "parts")
    folder, mark = parts / "checkpoints", tmp_path / "executed"
    content = torch.load(folder / "last.ckpt", weights_only=True)
    for path in list(folder.iterdir()):
        forge({**content, "callbacks": {"Mine": Payload(mark)}}, path)
    with pytest.raises(CorruptDataError, match=r"refused, it holds _?io\.open"):
        run(compose(f"resume={parts}", "trainer.max_epochs=4"), parts)
    assert not mark.exists()
    torch.load(folder / "last.ckpt", weights_only=False)
    assert mark.exists(), "the payload works where it is allowed to"


def test_hyperparameters_in_a_checkpoint_are_data_whatever_they_name(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "marking.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = shutil.copytree(trained[0], tmp_path / "parts")
    last = parts / "checkpoints" / "last.ckpt"
    code = {
        "_target_": "os.system", "command": f"touch {mark}", "_args_": [f"touch {mark}"],
        "nested": [{"_target_": "marking.Net", "_partial_": True}],
        "_instantiator": "marking.make", "_class_path": "marking.Net",
    }  # fmt: skip
    content = torch.load(last, weights_only=True)
    named = ("hyper_parameters", "datamodule_hyper_parameters", "ImageData", "callback", "x")
    content |= {"hparams_name": "marking", "hparams_type": "marking.Net"} | dict.fromkeys(
        named, code
    )
    content["callbacks"]["marking.Callback"] = code
    save_checkpoint(content, last)
    resumed = run(compose(f"resume={parts}", "trainer.max_epochs=5"), parts)
    assert {key: resumed[key] for key in NUMBERS} == trained[1]
    assert not mark.exists()
    assert "marking" not in sys.modules


def test_a_run_that_was_moved_still_knows_its_best(train: Train, tmp_path: Path) -> None:
    first = train(*TINY, BEST)
    moved = tmp_path / "elsewhere" / "moved"
    shutil.move(tmp_path / "run", moved)
    resumed = run(compose(f"resume={moved}", "trainer.max_epochs=3"), moved)
    best = "best-epoch000-step000002"
    assert resumed["tested_checkpoint"] == first["tested_checkpoint"] == f"{best}.ckpt"
    assert names(moved) == [best, "last", "step000004"]

    (moved / "checkpoints" / f"{best}.ckpt").unlink()  # one that is gone is forgotten
    resumed = run(compose(f"resume={moved}", "trainer.max_epochs=4"), moved)
    assert resumed["tested_checkpoint"] == "best-epoch003-step000008.ckpt"

    flip(moved / "checkpoints" / "best-epoch003-step000008.ckpt")
    with pytest.raises(CorruptDataError, match=r"best-epoch003-step000008\.ckpt: damaged"):
        run(compose(f"resume={moved}", "trainer.max_epochs=4", "trainer.max_steps=9"), moved)


def test_what_a_callback_of_ones_own_may_not_store_is_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storing.py").write_text(
        "import pytorch_lightning as pl\n"
        "from pathlib import Path\n"
        "class Where(pl.Callback):\n"
        "    def state_dict(self): return {'place': Path('x')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match=r"callbacks\.Where\.place is a pathlib"):
        train(*TINY, "trust=[storing]", "callbacks.custom=[{_target_: storing.Where}]")


# --- full disks, from the command line ------------------------------------------------------------


def command(run_dir: Path, *overrides: str) -> list[str]:
    return [
        sys.executable, str(REPOSITORY / "train.py"), "trainer=cpu", "trainer.threads=1",
        "callbacks.checkpoint.save_top_k=0", "trainer.max_epochs=6", f"hydra.run.dir={run_dir}",
        *overrides,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_a_file_that_may_not_grow_stops_the_training_with_status_1(
    tmp_path: Path, trainer: str
) -> None:
    words = command(tmp_path / "run", f"trainer={trainer}", "logger=csv")
    limited = f"ulimit -f 400; {' '.join(words)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    lines = {line for line in done.stderr.splitlines() if not line.startswith("epoch")}
    (line,) = lines
    assert "last.ckpt: not written, file too large: 0." in line
    assert names(tmp_path / "run") == []


@pytest.mark.slow
def test_a_disk_that_is_full_stops_the_training_with_the_last_checkpoint_intact(
    tmp_path: Path,
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=2500k none {disk}"
    if subprocess.run(["unshare", "-rm", "bash", "-c", mount], capture_output=True).returncode:
        pytest.skip("a file system of one's own is not allowed here")
    words = command(disk / "run", "callbacks.checkpoint.keep_last=9")
    script = f"{mount}; {' '.join(words)}; status=$?; cp -r {disk}/run {kept}; exit $status"
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("epoch")]
    assert "last.ckpt: not written, no space left on device: 0." in line
    assert (kept / "error.txt").read_text().strip() == line
    assert names(kept) == ["last", "step000021", "step000042"]
    assert step_in(kept / "checkpoints" / "last.ckpt") == 42


def test_a_resumed_run_reads_its_checkpoint_once(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("data.limit=64", "recorder=off", "logger=none", "trainer.limit_test_batches=0")
    train(*small)
    open_file, read = Path.open, []

    def noting(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.suffix == ".ckpt" and mode == "rb":
            read.append(path.name)
        return open_file(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", noting)
    folder = tmp_path / "run"
    run(compose(f"resume={folder}", "trainer.max_epochs=2"), folder)
    assert read == ["last.ckpt"]
