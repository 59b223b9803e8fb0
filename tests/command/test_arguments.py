"""A command as people type it: options anywhere, ``~``, letters of all languages, wrong options."""

import re
from pathlib import Path

import pytest

from convtrain.command.command_line import CommandLine, readable
from convtrain.command.overrides import parse_override
from convtrain.errors import ConfigError
from convtrain.launch.command import run_command
from convtrain.text import quoted
from tests.command.typed import check

HOME = "/home/ada"
READ = {
    "data.root=~/photos": "/home/ada/photos",
    "data.root=~": "/home/ada",
    "data.root='~/photos'": "/home/ada/photos",
    "hydra.run.dir=~/runs/1": "/home/ada/runs/1",
    "data.root=/data/사진": "/data/사진",
    "data.root=/données/photos": "/données/photos",
    "data.root=/data/my photos": "/data/my photos",
    "data.root=/data/lr=0.1": "/data/lr=0.1",
    "data.root=/data/it's": "/data/it's",
    "data.root=/data/photos (1)": "/data/photos (1)",
    "data.root=/data/[old]": "/data/[old]",
    "data.root=/data/a&b;c#d": "/data/a&b;c#d",
    "data.root=C:\\photos": "C:\\photos",
    "data.root=${oc.env:PHOTOS}/사진": "${oc.env:PHOTOS}/사진",
    "data.classes=[고양이,개]": ["고양이", "개"],
    "data.classes=[no,yes]": ["no", "yes"],
    "seed=3": 3,
}
UNREADABLE = {
    "trainer.max_epochs==10": "type trainer.max_epochs=10",
    "data.root='/photos": "type data.root='\\'/photos', and quote the whole for the shell",
    "data.classes=[a,'b]": "type data.classes='[a,\\'b]'",
    "optimizer.lr=choice(~,1)": "type optimizer.lr='choice(~,1)'",
    "nonsense": "such as seed=2",
    "=3": "such as seed=2",
    "": "such as seed=2",
}
OPTIONS = {
    "--bild": "--bild: no such option; values are typed as key=value, such as seed=2",
    "--multirn seed=1": "--multirn: no such option; did you mean --multirun?",
    "--seed 3": "--seed: no such option; type seed=VALUE",
    "--max-epochs=3": "--max-epochs: no such option; type trainer.max_epochs=VALUE",
    "--epochs 3 model=nn": "--epochs: no such option; type trainer.max_epochs=VALUE",
    "--gpus=2": "--gpus: no such option; type trainer=gpu trainer.devices=N",
    "-x": "-x: no such option; values are typed as key=value, such as seed=2",
    "seed=1 -p": "--package/-p: expected one argument; python train.py --help shows what can be",
    "--conf x": "ambiguous option: --conf could match --config-path, --config-name, --config-dir",
    "--cfg nope": "--cfg/-c: invalid choice: 'nope'",
    "seed=1 --config-dir nowhere model=nn": "--config-dir=nowhere: no such folder",
    "seed=1 --resolve": "--resolve: resolves what --cfg prints; add --cfg job",
    "--cfg job -m seed=1,2": "--cfg: cannot be combined with --multirun; leave one out",
}
ANYWHERE: dict[str, tuple[list[str], dict[str, object]]] = {
    "model=nn -m seed=1,2": (["model=nn", "seed=1,2"], {"multirun": True}),
    "seed=1,2 model=nn --multirun": (["seed=1,2", "model=nn"], {"multirun": True}),
    "seed=1 --config-dir configs model=nn": (["seed=1", "model=nn"], {"config_dir": "configs"}),
    "model=nn --config-dir=configs -m seed=1,2": (
        ["model=nn", "seed=1,2"], {"multirun": True, "config_dir": "configs"},
    ),
    "model=nn --cfg job seed=2": (["model=nn", "seed=2"], {"cfg": "job"}),
    "model=nn --info": (["model=nn"], {"info": "all"}),
}  # fmt: skip


@pytest.mark.parametrize("typed", READ)
def test_a_value_is_read_as_it_was_meant(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    override = parse_override(readable(typed))
    assert override is not None
    assert override.key_or_group == typed.partition("=")[0]
    assert override.value() == READ[typed]
    assert not override.is_sweep_override()
    assert readable(readable(typed)) == readable(typed)


def test_each_value_of_a_sweep_is_read() -> None:
    override = parse_override(readable("data.root=/data/사진,/data/개,/data/x"))
    assert override is not None
    assert list(override.sweep_string_iterator()) == ["'/data/사진'", "'/data/개'", "/data/x"]


PATHS = (
    "a", "a/b c", "it's", "end\\", "end\\\\", "a\\'b", "사진", "x=1", "a,b", "[a]", "{a}", "(a)",
    "''", "null", "true", "1", "a/1", "$x", "é#&;", "a\\\\'",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_quoted_path_is_that_path_to_hydra(path: str) -> None:
    override = parse_override(f"resume={quoted(path)}")
    assert override is not None
    assert override.value() == path


@pytest.mark.parametrize("typed", UNREADABLE)
def test_what_cannot_be_read_is_the_only_line(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check(["seed=3", typed])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{typed or repr(typed)}: cannot be read as key=value; ")
    assert UNREADABLE[typed] in line


@pytest.mark.parametrize("left_out", ["data.root='nowhere", "data=imagefolder", "data.root=a,b"])
def test_what_stands_in_for_a_wrong_override_is_not_judged(
    left_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check(["data=image_folder", left_out])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(left_out)


@pytest.mark.parametrize("typed", OPTIONS)
def test_a_wrong_option_is_one_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(typed.split())
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(OPTIONS[typed])


@pytest.mark.parametrize("typed", ANYWHERE)
def test_overrides_stand_on_both_sides_of_an_option(typed: str) -> None:
    command = CommandLine.parse(typed.split())
    overrides, options = ANYWHERE[typed]
    assert command.overrides == overrides
    given = {name: value for name, value in vars(command.options).items() if value}
    assert given == {"overrides": overrides, **options}


@pytest.mark.parametrize("typed", ["--help", "-h", "-h model=nn", "model=nn --help", "-m -h"])
def test_help_lists_what_can_be_chosen(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(typed.split())
    shown = capsys.readouterr().out
    assert "network: alexnet (63x63 and more), " in shown
    assert "digits (1x8x8)" in shown
    assert not re.search(r"\b_base\b", shown)


def test_the_version_is_the_projects_own(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["seed=1", "--version"])
    shown = capsys.readouterr().out
    assert re.match(r"convtrain \d+\.\d+\.\d+, torch \d", shown)
    assert "hydra-core 1." in shown


def test_a_pickle_is_not_run_again() -> None:
    with pytest.raises(ConfigError, match="a pickle can run any code"):
        CommandLine.parse(["--experimental-rerun", "x.pickle"])


def test_a_folder_of_ones_own_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra changes into the run's directory where ``hydra.job.chdir=true`` asks for it."""
    from convtrain.command.compose import compose_command
    from convtrain.command.job_config import resolve_config

    for name in ("train/cat", "train/dog"):
        (tmp_path / "사진" / name).mkdir(parents=True)
        (tmp_path / "사진" / name / "1.png").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    command = CommandLine.parse(["data=image_folder", "data.root=사진"])
    (composed,) = compose_command(command)
    asked = resolve_config(composed.config, command.overrides)
    assert asked.data.root == "사진"
    monkeypatch.chdir(tmp_path / "run")
    found = resolve_config(composed.config, command.overrides, cwd=tmp_path)
    assert found.data.root == str(tmp_path / "사진")
    assert found.data.classes == asked.data.classes == ["cat", "dog"]
