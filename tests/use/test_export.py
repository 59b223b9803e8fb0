"""``python -m convtrain export``: the weights alone, as a format that can hold nothing else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convtrain.__main__ import main
from convtrain.assembly import make_model
from convtrain.training.checkpoint_file import save_checkpoint
from tests.conftest import Train, compose
from tests.training.forged import Payload, forge

TINY = ("data.limit=128", "logger=none", "scheduler=none", "trainer.max_epochs=2")


def saved_weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("style", ["functional", "nn"])
def test_exported_weights_load_strictly_and_give_the_same_scores(
    style: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*TINY, f"model={style}")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run")]) == 0
    file = tmp_path / "run" / "weights.safetensors"
    assert capsys.readouterr().out.startswith(f"{file}: 20 tensors, ")
    config = compose("trainer=cpu", f"model={style}")
    exported, original = make_model(config), make_model(config)
    exported.load_state_dict(load_file(file), strict=True)
    original.load_state_dict(saved_weights(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    images = torch.randn(5, *config.data.shape)
    assert torch.equal(exported.eval()(images), original.eval()(images))


def test_best_last_and_named_checkpoints_can_be_told_apart(train: Train, tmp_path: Path) -> None:
    train(*TINY, "callbacks.checkpoint.save_top_k=2")
    folder = tmp_path / "run" / "checkpoints"
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 4
    wanted = {
        "best": "best-epoch000-step000002.ckpt",  # the validation loss rises
        "last": "last.ckpt",
        "step000002": "step000002.ckpt",
        "best-epoch001-step000004.ckpt": "best-epoch001-step000004.ckpt",
    }
    for checkpoint, source in wanted.items():
        out = tmp_path / "new" / f"{checkpoint}.safetensors"
        assert (
            main(["export", str(tmp_path / "run"), f"--checkpoint={checkpoint}", f"--out={out}"])
            == 0
        )
        torch.testing.assert_close(load_file(out), saved_weights(folder / source), rtol=0, atol=0)
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [".safetensors"] * 4


def test_tensors_that_share_memory_or_lie_crosswise_are_written_whole(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    state = {"model.a": weight, "model.tied": weight, "model.across": weight.T, "other": weight}
    save_checkpoint({"state_dict": state}, tmp_path / "checkpoints" / "last.ckpt")
    assert main(["export", str(tmp_path)]) == 0
    loaded = load_file(tmp_path / "weights.safetensors")
    assert sorted(loaded) == ["a", "across", "tied"]
    assert all(torch.equal(loaded[name], weight) for name in ("a", "tied"))
    assert torch.equal(loaded["across"], weight.T)


MISTAKES = {
    "no run": ([], "no checkpoints; give the directory of a run", 2),
    "unknown name": (["--checkpoint", "lost"], "has best, last, step000002; did you mean last?", 2),
    "no best": (["--checkpoint", "best"], "there is no best checkpoint", 2),
    "damaged": ([], "last.ckpt: damaged", 1),
    "payload": ([], "io.open, and a checkpoint holds tensors and plain containers only", 1),
    "no tensor": ([], "last.ckpt: extra is a dict, not a tensor", 1),
    "cannot be written": (["--out", "/proc/none/w"], "/proc/none/w: not written", 1),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, mark = tmp_path / "checkpoints", tmp_path / "executed"
    if case != "no run":
        for name in ("last", "step000002"):
            save_checkpoint({"state_dict": {"model.w": torch.ones(1)}}, folder / f"{name}.ckpt")
    if case == "damaged":
        (folder / "last.ckpt").write_bytes(b"")
    if case == "payload":
        forge({"state_dict": {"model.w": Payload(mark)}}, folder / "last.ckpt")
    if case == "no tensor":
        save_checkpoint({"state_dict": {"model.extra": {}}}, folder / "last.ckpt")
    options, says, status = MISTAKES[case]
    assert main(["export", str(tmp_path), *options]) == status
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not mark.exists()
    assert not (tmp_path / "weights.safetensors").exists()
