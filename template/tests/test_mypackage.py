"""The parts of this project, and one batch of its training in both styles: `make test`."""

import subprocess
import sys
import unittest
from pathlib import Path

import torch

from mypackage.dataset import Stripes
from mypackage.layer import Gain
from mypackage.loss import ScaledCrossEntropy


class TestParts(unittest.TestCase):
    def test_the_same_seed_draws_the_same_images(self) -> None:
        first, again, other = Stripes(seed=1), Stripes(seed=1), Stripes(seed=2)
        assert torch.equal(first[7][0], again[7][0])
        assert not torch.equal(first[7][0], other[7][0])

    def test_gain_multiplies_each_channel(self) -> None:
        images = torch.randn(2, 3, 4, 4)
        assert torch.equal(Gain(3, initial=2.0)(images), 2 * images)

    def test_the_loss_of_equal_logits_is_the_logarithm_of_the_classes(self) -> None:
        loss = ScaledCrossEntropy()(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
        assert torch.allclose(loss, torch.tensor(3.0).log())

    def test_one_batch_trains_in_both_styles(self) -> None:
        for style in ("functional", "nn"):
            command = ["train", "experiment=mine", f"model={style}", "debug=fast_dev_run"]
            done = subprocess.run(
                [sys.executable, "-m", "convtrain", *command],
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    unittest.main()
