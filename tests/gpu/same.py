"""Two runs have the same weights, to the last bit."""

from pathlib import Path

import torch

from convtrain.training.checkpoint_file import load_checkpoint


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = (
        load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (first, second)
    )
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
