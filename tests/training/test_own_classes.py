"""A run with a dataset, a logger and a callback of one's own is killed and resumed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_resume import SMALL, Whole, assert_same_bits, contents

OWN = '''
import json, os
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch.utils.data import Dataset

class Noise(Dataset):
    """Random images; the numbers are those that convtrain seeds."""

    classes = ["left", "right"]

    def __init__(self, count: int):
        self.count, self.shift = count, int(torch.randint(9, ()))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = index % 2
        image = torch.randint(0, 100, (3, 16, 16), dtype=torch.uint8) + self.shift
        image[:, :, 8 * label : 8 * label + 8] += 100
        return image, label

class Lines(Logger):
    """Appends a line for each entry, and keeps in checkpoints how many there are."""

    name = version = ""

    def __init__(self, save_dir: str):
        super().__init__()
        self.path, self.lines = os.path.join(save_dir, "lines.jsonl"), 0

    def log_hyperparams(self, params):
        self._write({"lr": params["optimizer"]["lr"]})

    def log_metrics(self, metrics, step=None):
        kept = {k: v for k, v in metrics.items() if k != "images_per_second"}
        self._write({"step": step, **kept})

    def _write(self, entry):
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + chr(10))
        self.lines += 1

    def state_dict(self):
        return {"lines": self.lines}

    def load_state_dict(self, state):
        self.lines = state["lines"]
        with open(self.path) as file:
            kept = file.readlines()[: self.lines]
        with open(self.path, "w") as file:
            file.writelines(kept)

class Slower(pl.Callback):
    """Halves the learning rate whenever enough images were seen since the last time."""

    def __init__(self, images: int):
        self.images, self.seen = images, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen += len(batch.images)
        if self.seen >= self.images:
            self.seen -= self.images
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= 0.5

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
'''
NAMED = (
    "trust=[ownclasses]", "data=custom", "data.train._target_=ownclasses.Noise",
    "data.train.count=70", "data.test._target_=ownclasses.Noise", "data.test.count=12",
    "data.num_classes=2", "data.shape=[3,16,16]", "data.batch_size=8", "data.eval_batch_size=4",
    "logger=custom", "logger._target_=ownclasses.Lines", "logger.tensorboard=false",
    "callbacks.custom=[{_target_: ownclasses.Slower, images: 100}]", "scheduler=none",
)  # fmt: skip
RUN = tuple(text for text in SMALL if not text.startswith(("data", "logger"))) + NAMED


@pytest.fixture
def own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ownclasses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ownclasses", None)


def lines(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "lines.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("own_classes")
def test_killed_and_resumed_it_ends_as_if_it_had_not_been_killed_in_both_styles(
    tmp_path: Path,
) -> None:
    styles = {
        style: Whole(tmp_path / style, (*RUN, f"model={style}")) for style in ("functional", "nn")
    }
    for whole in styles.values():
        logged = lines(whole.folder / "whole")
        assert logged[0] == {"lr": 0.03}
        assert [entry["step"] for entry in logged if "test/loss" in entry] == [24]
        for place, number in (("batch", 13), ("validation", 3), ("epoch's end", 1)):
            assert whole.check_killed(place, number), place
            name = f"{place}-{number}".replace(" ", "-").replace("'", "")
            assert lines(whole.folder / name) == logged, name
    saved = [contents(whole.folder / "whole") for whole in styles.values()]
    assert_same_bits(*(each["state_dict"] for each in saved))
    assert torch.load(tmp_path / "nn" / "whole" / "checkpoints" / "last.ckpt", weights_only=True)[
        "callbacks"
    ]["Slower"] == {"seen": 62 * 3 % 100}
