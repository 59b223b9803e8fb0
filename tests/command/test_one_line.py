"""Mistakes that ended in a traceback, in silence, or in more lines than one: one line, status 2."""

from pathlib import Path

import pytest
import yaml

from convtrain.command.command_line import CommandLine
from tests.command.typed import check
from tests.conftest import compose

UNKNOWN = "Interpolation key 'x' not found"
LINES = {
    # an override that cannot be read, or has several values, of a run that is resumed
    "resume=RUN trainer.max_epochs==10": "trainer.max_epochs==10: cannot be read as key=value",
    "resume=RUN nonsense": "nonsense: cannot be read as key=value",
    "resume=RUN trainer.max_epochs=1,2": "trainer.max_epochs=1,2: several values make a sweep",
    "-m resume=RUN trainer.max_epochs=1,2": "trainer.max_epochs=1,2: a run that is resumed takes",
    "-m resume=RUN": "resume=RUN: a sweep trains in directories of its own; leave -m out",
    "resume=RUN trainer.max_epochs=${x}": f"trainer.max_epochs: {UNKNOWN}",
    "resume=RUN seed=2": "seed=2: cannot change when a run is resumed",
    "resume=auto trainer.max_epochs==10": "trainer.max_epochs==10: cannot be read as key=value",
    # interpolations that lead nowhere
    "trust=${x}": f"trust: {UNKNOWN}",
    "trust=[${x}]": f"trust.0: {UNKNOWN}",
    "resume=${x}": f"resume: {UNKNOWN}",
    "resume=auto trust=${x}": f"trust: {UNKNOWN}",
    "resume=auto resume=${x}": f"resume: {UNKNOWN}",
    "optimizer.lr=${x}": f"optimizer.lr: {UNKNOWN}",
    "optimizer.lr=${oc.env:NOPE}": "optimizer.lr: KeyError raised while resolving interpolation",
    "data.root=${x}": f"data.root: {UNKNOWN}",
    "hydra.run.dir=${x}": f"hydra.run.dir: {UNKNOWN}",
    "hydra.run.dir=${oc.env:NOPE}": "hydra.run.dir: KeyError raised while resolving interpolation",
    "hydra.job.name=${x}": f"hydra.job.name: {UNKNOWN}",
    "hydra.job.id=${x}": f"hydra.job.id: {UNKNOWN}",
    "hydra.output_subdir=${x}": f"hydra.output_subdir: {UNKNOWN}",
    "hydra.verbose=${x}": "hydra.verbose: must be true, false, or the names of loggers",
    "-m hydra.sweep.dir=${x} seed=1,2": f"hydra.sweep.dir: {UNKNOWN}",
    "-m hydra.sweep.subdir=${x} seed=1,2": f"hydra.sweep.subdir: {UNKNOWN}",
    "-m hydra.sweeper.max_batch_size=${x} seed=1,2": f"hydra.sweeper.max_batch_size: {UNKNOWN}",
    "hydra.job.config.override_dirname.kv_sep=${x}": "the configuration cannot be composed: ",
    # values of another kind
    "resume=[a]": "resume=[a]: must be the directory of a run; type resume=RUN_DIRECTORY",
    "resume={a:1}": "resume={a: 1}: must be the directory of a run",
    "resume=5": "resume=5: must be the directory of a run",
    "data.classes=[0,b,c,d,e,f,g,h,i,j]": "data.classes.0=0: must be a string; type 'data.classes",
    "network.name=5": "network.name=5: must be a string (name of the network",
    # keys that are numbers
    "callbacks.custom=[{_target_:pytorch_lightning.callbacks.Timer,1:2}]": (
        "callbacks.custom.0.1: a key must be text; put it in quotes in a YAML file"
    ),
    "network.init={1:zeros}": "network.init.1: a key must be text",
    "network.parametrize={1:orthogonal}": "network.parametrize.1: a key must be text",
    "network.blocks={1:[ReLU]}": "network.blocks.1: a key must be text",
    "recorder={true:2}": "recorder.True: a key must be text",
    "callbacks={1.5:2}": "callbacks.1.5: a key must be text",
    "model=custom model._target_=torch.nn.Identity +model.names={0:cat}": (
        "model.names.0: a key must be text"
    ),
    # classes
    "data=synthetic data.num_classes=1": "data.num_classes=1: is one class, so that every answer",
    "data=synthetic data.num_classes=null data.classes=[cat]": "data.classes=[cat]: is one class",
    "data=image_folder data.root=ONE": "data.classes=[cat]: is one class",
    "data=image_folder data.root=TWO data.classes=[no]": "data.classes=[no]: is one class",
}  # fmt: skip
RIGHT = (
    "resume=RUN trainer.max_epochs=30",
    "resume=auto hydra.run.dir=a hydra.run.dir=b",
    "data=image_folder data.root=TWO data.classes=[no,yes]",
    "data=image_folder data.root=TWO data.classes=[yes,no] model=nn",
    "data=synthetic data.num_classes=null data.classes=[no,yes]",
    "experiment=conv2d_nn",
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("ONE/cat", "TWO/no", "TWO/yes"):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(40):
            (tmp_path / folder / f"{index}.png").touch()
    run = tmp_path / "RUN"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "config.yaml").write_text(yaml.safe_dump(compose().model_dump(by_alias=True)))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("typed", LINES)
def test_a_mistake_is_one_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        check(typed.split())
    assert stopped.value.code == 2
    printed = capsys.readouterr().err.splitlines()
    (line,) = [line for line in printed if not line.startswith("resume=auto: no unfinished run")]
    assert line.startswith(LINES[typed])


@pytest.mark.parametrize("typed", RIGHT)
def test_what_is_right_is_accepted(typed: str) -> None:
    check(typed.split())


@pytest.mark.parametrize("source", ["image_folder data.root=TWO", "synthetic"])
def test_the_number_of_classes_follows_from_their_names(source: str) -> None:
    from convtrain.command.configure import configure_command

    typed = f"data={source} data.num_classes=null data.classes=[no,yes]"
    (config,) = configure_command(CommandLine.parse(typed.split())).configs
    assert (config.data.classes, config.data.num_classes) == (["no", "yes"], 2)
    assert config.network.layers[-1] == {"Linear": {"out_features": 2}}
