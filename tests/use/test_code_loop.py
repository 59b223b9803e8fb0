"""The training loop of ``convtrain code`` trains to the bits of the run that it shows."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Sampler
from torchvision.transforms import v2

from convtrain.__main__ import main
from convtrain.assembly import make_data
from convtrain.command.job_config import config_of
from convtrain.config.schema import Config
from convtrain.data.module import ImageData
from convtrain.data.sampling import epoch_order
from convtrain.run.directory import Run
from convtrain.training.class_weights import balanced_weights
from convtrain.training.objectives import make_loss
from convtrain.training.saved_weights import find_checkpoint, read_weights
from convtrain.use.code.write import Code, write_code
from tests.conftest import Train, compose, slow_but

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


@pytest.mark.parametrize("style", slow_but(("nn", "functional"), "functional"))
def test_the_loop_begins_with_the_weights_of_the_run(
    style: Any, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*SMALL, "trainer.max_epochs=1", name="before")
    run, file = tmp_path / "run", tmp_path / "net.py"
    weights = f"model.weights={tmp_path / 'before'}"
    # Other classes, so that the head is new.
    classes = "data.classes=[a,b,c,d,e,f,g,h,i,j]"
    train(*SMALL, *EXACT, "model=nn", classes, weights, "model.freeze=[conv2d_1.*]")
    start, typed = tmp_path / "begin.pt", f"model={style}"
    assert main(["code", str(run), typed, "--out", str(file), "--start", str(start)]) == 0
    assert f"--start {start.name}" in file.read_text()
    monkeypatch.chdir(tmp_path)
    config = config_of(Run(run))
    code = write_code(config, style, start=start.name)
    theirs = code.rename(read_weights(find_checkpoint(Run(run), "last"), Run(run)))
    ours = trained(code, make_data(config), config)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    # Published weights of the run may be gone: what remains is the line that says how to get them.
    shutil.rmtree(tmp_path / "before")
    assert main(["code", str(run), "--out", str(file)]) == 0
    assert 'torch.load("start.pt")' in file.read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--start net.pt network=lenet", "model.weights is null; leave --start out"),
        ("--start net.safetensors network=lenet", "must end in one of .pt, .pth"),
        ("--start net.pt network=lenet model.weights=gone.pt", "there is no such file or run"),
    ],
)
def test_a_mistake_about_the_start_is_one_line(
    typed: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["code", *typed.split(), "data=mnist"]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_augmentation_and_balanced_sampling_are_written(tmp_path: Path) -> None:
    for name, count in (("a", 9), ("b", 5), ("c", 7)):
        (tmp_path / name).mkdir()
        for index in range(count):
            image = Image.new("RGB", (60 + index, 50), (index, 0, 9))
            image.save(tmp_path / name / f"{index}.png")
    config = compose(
        *("network=lenet", "data=image_folder", f"data.root={tmp_path}", "data.shape=[3,24,36]"),
        *("data.store_size=48", "augment.crop_scale=[0.3,0.9]", "augment.crop_ratio=[0.5,2]"),
        *("augment.horizontal_flip=0.25", "augment.cutout=4", "data.interpolation=bicubic"),
        *("data.sampling=balanced", "trainer.max_epochs=1", "data.batch_size=32"),
    )
    text = write_code(config).text
    assert "# This loop leaves out: augment.cutout." in text
    assert text.count("# convtrain draws other random numbers") == 1
    made: list[Any] = []

    def recording(name: str) -> None:
        known = file[name]

        def make(*given: Any) -> Any:
            made.append((name, known(*given), given))
            return made[-1][1]

        file[name] = make

    file: dict[str, Any] = {"__name__": "file"}
    exec(text.replace("1024", "96"), file)
    recording("Augmented")
    recording("WeightedRandomSampler")
    file["train"]()
    (_, dataset, (images, labels, transform)), (_, sampler, (weights, count)) = made
    bicubic = v2.InterpolationMode.BICUBIC
    expected = [
        v2.RandomResizedCrop((24, 36), (0.3, 0.9), (0.5, 2.0), bicubic),
        v2.RandomHorizontalFlip(0.25),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(config.data.mean, config.data.std),
    ]
    assert list(map(repr, transform.transforms)) == list(map(repr, expected))
    assert images[0].shape == (3, 48, 64)
    assert dataset[0][0].shape == (3, 24, 36)
    assert count == len(labels) == len(list(sampler)) == 96
    drawn = torch.zeros(3).index_add(0, labels, weights)
    assert torch.allclose(drawn, torch.ones(3))


def test_any_number_of_labels_is_written() -> None:
    config = compose(
        "network=convnet", "loss=bce", "trainer.max_epochs=1", "loss.class_weights=balanced"
    )
    text = write_code(config, multi_label=True).text
    file: dict[str, Any] = {"__name__": "file"}
    exec(text.replace("1024", "96"), file)
    file["train"]()
    labels = torch.randint(2, (50, 10)).float()
    line = next(line for line in text.splitlines() if "class_weights = " in line)
    given = {"labels": labels, "present": labels.sum(0), "device": "cpu"}
    weights = eval(line.partition(" = ")[2], given)
    expected = balanced_weights(labels, list(map(str, range(10))))
    assert torch.allclose(weights, torch.tensor(expected))
    logits = torch.randn(50, 10)
    loss = eval(
        text.partition("loss = ")[2].splitlines()[0],
        file | {"logits": logits, "labels": labels, "class_weights": weights},
    )
    assert torch.equal(
        loss, make_loss(config, multi_label=True, class_weights=expected)(logits, labels)
    )
