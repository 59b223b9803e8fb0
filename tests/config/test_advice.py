"""What an error advises is possible: each advice is taken, and the mistake is gone."""

import re
import sys
from pathlib import Path

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.command.hydra_errors import hydra_keys
from convtrain.config.messages import schema
from convtrain.config.other_tools import ADVICE as ELSEWHERE
from convtrain.errors import ConfigError
from tests.conftest import REPOSITORY

ADVICE: dict[str, dict[str, str]] = {
    "data=synthetic data.classes=[cat,dog]": {
        "data.num_classes=null": "data=synthetic data.classes=[cat,dog] data.num_classes=null",
    },
    "data=synthetic data.num_classes=2 data.classes=[0,yes]": {
        'data.classes=["0","yes"]': 'data=synthetic data.num_classes=2 data.classes=["0","yes"]',
    },
    "network.name=5": {'network.name="5"': 'network.name="5"'},
    "data=synthetic data.memory_gib=0.001": {
        "data.memory_gib=0.0074": "data=synthetic data.memory_gib=0.0074",
    },
    "data.batch_size=2000": {"data.batch_size=1295": "data.batch_size=1295"},
    "trainer.accelerator=cpu trainer.strategy=fsdp": {"trainer=ddp_cpu": "trainer=ddp_cpu"},
    "trainer=fsdp trainer.channels_last=true": {
        "trainer.channels_last=auto": "trainer=fsdp trainer.channels_last=auto",
    },
    "trainer=fsdp trainer.precision=16-mixed": {
        "trainer.precision=bf16-mixed": "trainer=fsdp trainer.precision=bf16-mixed",
    },
    "trainer.compile=reduce-overhead trainer.accumulate_grad_batches=2": {
        "trainer.compile=default": "trainer.compile=default trainer.accumulate_grad_batches=2",
    },
    "augment=mixup loss=multi_margin": {
        "augment.mixup=0": "augment=mixup loss=multi_margin augment.mixup=0",
        "loss=cross_entropy": "augment=mixup loss=cross_entropy",
    },
    "optimizer=sgd_momentum optimizer.momentum=0": {
        "optimizer.nesterov=false": (
            "optimizer=sgd_momentum optimizer.momentum=0 optimizer.nesterov=false"
        ),
    },
    "trainer.limit_val_batches=0 callbacks.early_stopping.patience=3": {
        "callbacks.early_stopping.patience=null": (
            "trainer.limit_val_batches=0 callbacks.early_stopping.patience=null"
        ),
    },
    "trainer.max_epochs==10": {"trainer.max_epochs=10": "trainer.max_epochs=10"},
    "data.shape=1,8,8": {"data.shape=[1,8,8]": "data.shape=[1,8,8]"},
    "seed=1,2": {"add -m": "-m seed=1,2"},
    "model=custom model._target_=mypackage.Net": {
        "trust=[mypackage]": "model=custom model._target_=mypackage.Net trust=[mypackage]",
    },
    "data=image_folder data.root=nowhere": {
        "data.root=FOLDER": "data=image_folder data.root=FOLDER"
    },
    "resume=5": {"resume=RUN_DIRECTORY": "resume=RUN_DIRECTORY"},
    "resume=RUN_DIRECTORY trainer.max_epochs=3,4": {
        "give one": "resume=RUN_DIRECTORY trainer.max_epochs=3",
    },
    "-m resume=RUN_DIRECTORY": {"leave -m out": "resume=RUN_DIRECTORY"},
    "wandb=true": {"logger=wandb": "logger=wandb"},
    "max_epochs=3": {"trainer.max_epochs?": "trainer.max_epochs=3"},
    "optimizer.learning_rate=0.1": {"optimizer.lr?": "optimizer.lr=0.1"},
    "optimizer=adam optimizer.momentum=0.9": {
        "belongs to optimizer=sgd": "optimizer=sgd optimizer.momentum=0.9",
    },
    "+seed=3": {"leave out the +: seed=3": "seed=3"},
    "~/x": {"seed=2": "seed=2"},
}
FACTS = {"trainer.strategy=fsdp", "loss=multi_margin", "key=value"}  # told, not advised
SAMPLES = {"N": "2", "ALPHA": "0.2", "CHANNELS": "1", "HEIGHT": "8", "WIDTH": "8"}
WORD = re.compile(r"\b[a-z_]+(?:[./][\w.]+)*=(?:\[[^\]]*\]|[^\s,;')]+)")


def lines(typed: list[str]) -> list[str]:
    try:
        configure_command(CommandLine.parse(typed))
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.fixture(scope="module")
def defaults() -> str:
    (config,) = configure_command(CommandLine.parse([])).configs
    return config.model_dump_json(by_alias=True)  # which YAML reads as well


@pytest.mark.parametrize("typed", ADVICE)
def test_an_advice_is_possible(
    typed: str, defaults: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FOLDER/cat", "FOLDER/dog"):
        (tmp_path / name).mkdir(parents=True)
        for index in range(20):
            (tmp_path / name / f"{index}.png").touch()
    (tmp_path / "RUN_DIRECTORY" / "checkpoints").mkdir(parents=True)
    (tmp_path / "RUN_DIRECTORY" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "RUN_DIRECTORY" / "config.yaml").write_text(defaults)
    (tmp_path / "mypackage.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypackage", raising=False)  # another test's
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convtrain.config.groups.logger.find_spec", lambda name: True)
    (line,) = lines(typed.split())
    for advice, then in ADVICE[typed].items():
        assert advice in line
        assert lines(then.split()) == []
    told = WORD.findall(re.sub(r"\[set in: .*\]$|^\S*: ", "", line))
    assert set(told) - FACTS - set(typed.split()) <= set(" ".join(ADVICE[typed]).split())


@pytest.mark.parametrize("advice", sorted(set(ELSEWHERE.values())))
def test_the_word_of_another_tool_leads_to_something_that_exists(
    advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convtrain.config.groups.logger.find_spec", lambda name: True)
    if meant := re.fullmatch(r"did you mean (.*)\?", advice):
        groups = {path.name for path in (REPOSITORY / "configs").iterdir()}
        keys = {*schema(), *hydra_keys().values(), *groups, "loss.label_smoothing"}
        assert meant[1] in keys
        return
    sample = re.sub(r"\b[A-Z]+\b", lambda name: SAMPLES.get(name[0], name[0]), advice)
    typed = [word for word in WORD.findall(sample.replace(",", "\0")) if "=" in word]
    assert lines([word.replace("\0", ",").rstrip(",") for word in typed[:2]]) == []


def test_words_are_looked_up_in_their_section_alone() -> None:
    """A key that nobody knows anywhere is answered with the keys of its section."""
    for section, wrong in (("optimizer", "colour"), ("data", "colour"), ("callbacks", "colour")):
        (line,) = lines([f"{section}.{wrong}=1"])
        known = line.split("known here: ")[1].split(" [")[0].split(", ")
        assert set(known) <= {
            path.removeprefix(f"{section}.").split(".")[0]
            for path in schema()
            if path.startswith(section)
        }


NOT_ACROSS = {
    "augment.cutmix_alpha=1": "did you mean augment.cutmix?",
    "augment.random_erasing=1": "augment.transforms=[RandomErasing]",
    "model.weight=DEFAULT": "did you mean model.weights?",
    "model.pretrained=true": "did you mean model.weights?",
    "data.image_size=32": "data.shape=[CHANNELS,HEIGHT,WIDTH]",
    "loss.weight=1": "did you mean loss.class_weights?",
    "trainer.epochs=3": "did you mean trainer.max_epochs?",
    "trainer.devises=3": "did you mean trainer.devices?",
    "data.num_workers=3": "images are decoded once, without workers; leave it out",
    "ckpt_path=x": "did you mean resume?",
    "gpus=2": "type trainer=gpu trainer.devices=N",
    "lr=0.1": "did you mean optimizer.lr?",
    "batchsize=3": "did you mean data.batch_size?",
    "optimizer.max_epochs=3": "did you mean trainer.max_epochs?",
}


@pytest.mark.parametrize("typed", NOT_ACROSS)
def test_a_wrong_key_leads_to_the_right_one(typed: str) -> None:
    (line,) = lines([typed])
    assert f"{typed}: no such key; " in line
    assert NOT_ACROSS[typed] in line
