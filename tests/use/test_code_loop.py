"""The training loop of ``convtrain code`` trains to the bits of the run that it shows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from convtrain.assembly import make_data
from convtrain.command.job_config import config_of
from convtrain.config.schema import Config
from convtrain.data.module import ImageData
from convtrain.data.sampling import epoch_order
from convtrain.run.directory import Run
from convtrain.training.saved_weights import find_checkpoint, read_weights
from convtrain.use.code.write import Code, write_code
from tests.conftest import Train, slow_but

SMALL = ("network=resnet8", "data.limit=90", "data.batch_size=30", "trainer.max_epochs=3")
EXACT = ("trainer.channels_last=false", "callbacks.report=false", "logger=none")


class Order(Sampler[int]):
    """The images in the order in which a run draws them."""

    def __init__(self, config: Config, labels: Tensor) -> None:
        self.config, self.labels, self.epoch = config, labels, -1

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        balanced = self.config.data.sampling == "balanced"
        order = epoch_order(self.labels, self.config.seed, self.epoch, balanced=balanced)
        return iter((order & 0xFFFFFFFF).tolist())


def trained(code: Code, data: ImageData, config: Config) -> dict[str, Tensor]:
    """Run a file's loop on the images of a run; return what its network holds at the end.

    It draws them in the run's order, and updates the weights by the run's fused kernels.
    """
    train, made = data.splits.train, list[nn.Module]()
    text = re.sub(r"images = torch.randn\(.*", "images = IMAGES", code.text)
    text = re.sub(r"labels = torch.randint\(.*", "labels = LABELS", text)
    text = re.sub("shuffle=True|sampler=sampler", "sampler=ORDER", text)
    text = re.sub(r"torch\.optim\.\w+\(\s*model.parameters\(\)", r"\g<0>, fused=True", text)
    images = data.normalise(train.read(torch.arange(len(train))))
    file: dict[str, Any] = {"__name__": "file", "IMAGES": images.clone(), "LABELS": train.labels}
    file["ORDER"] = Order(config, train.labels)
    exec(compile(text, "file.py", "exec"), file)
    kept = file[code.class_name].__init__

    def keep(self: nn.Module) -> None:
        kept(self)
        made.append(self)

    file[code.class_name].__init__ = keep
    file["train"]()
    return made[0].state_dict()


FROZEN = (
    *("model.freeze=[backbone]", "model.unfreeze_at_epoch=2", "trainer.ema=0.5"),
    "optimizer=adam",  # torch's fused SGD cannot train parameters later
)
BLOCKS = ("model.freeze=[conv2d_1.*,residual_1*]", "data.sampling=balanced", "trainer.ema=0.9")
RUNS: dict[tuple[str, ...], tuple[str, ...]] = {
    (*FROZEN, "loss.class_weights=balanced"): ("nn",),
    BLOCKS: ("functional",),
    FROZEN: ("functional",),
    ("model.freeze=[residual_2*]", "optimizer=adam", "trainer.ema=0.9"): ("nn", "functional"),
    ("model.freeze=[*bias]",): ("nn", "functional"),
    ("loss.class_weights=[1,2,3,4,5,6,7,8,9,10]", "scheduler=cosine"): ("nn",),
    ("optimizer.groups=[{match: conv2d_1*, freeze: true}]", *FROZEN): ("nn", "functional"),
    (
        "trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value",
        "trainer.ema=0.9",
    ): ("nn",),
}  # fmt: skip


@pytest.mark.parametrize("chosen", slow_but(RUNS, *list(RUNS)[:2]))
def test_the_loop_trains_to_the_same_bits_as_the_run(
    chosen: tuple[str, ...], train: Train, tmp_path: Path
) -> None:
    train(*SMALL, *EXACT, "model=nn", *chosen)
    run = Run(tmp_path / "run")
    config, state = config_of(run), read_weights(find_checkpoint(run, "last"), run)
    data = make_data(config)
    for style in RUNS[chosen]:
        code = write_code(config, style)  # type: ignore[arg-type]
        assert "leaves out" not in code.text
        ours, theirs = trained(code, data, config), code.rename(state)
        assert sorted(ours) == sorted(theirs)
        different = [key for key, value in ours.items() if not torch.equal(value, theirs[key])]
        assert not different, (style, different)
