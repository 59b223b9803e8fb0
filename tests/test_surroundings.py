"""Commands in surroundings that nobody has prepared for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from convtrain.command.resolvers import run_name
from convtrain.config.folders import read_layout
from convtrain.data.cache import default_folder
from convtrain.errors import ConfigError, MissingDataError
from tests.command.typed import check
from tests.conftest import REPOSITORY, Train

LOGS = "hydra.job_logging"
WRONG_LOGGING = {
    "a level": (f"{LOGS}.root.level=LOUD", f"{LOGS}.root.level=LOUD: Unknown level"),
    "a handler's level": (f"{LOGS}.handlers.file.level=LOUD", f"{LOGS}.handlers.file"),
    "a version": (f"{LOGS}.version=2", f"{LOGS}.version=2: must be 1"),
    "no version": (f"~{LOGS}.version", f"{LOGS}.version: must be 1"),
    "a handler": (f"{LOGS}.root.handlers=[nobody]", f"{LOGS}.root.handlers=[nobody]: must be of"),
    "a formatter": (f"{LOGS}.handlers.console.formatter=nobody", f"{LOGS}.handlers.console"),
    "a format": (f"{LOGS}.formatters.dated.format='%('", f"{LOGS}.formatters.dated"),
    "an argument": (f"+{LOGS}.handlers.file.colour=red", f"{LOGS}.handlers.file"),
    "a list": (f"{LOGS}.root.level=[1]", f"{LOGS}.root.level"),
    "text": (f"{LOGS}=text", LOGS),
}
LONG = "n" * 300
LONG_NAMES = {
    "the job's name": (f"hydra.job.name={LONG}", "hydra.job.name="),
    "the output's folder": (f"hydra.output_subdir={LONG}", "hydra.output_subdir="),
    "the run's folder": (f"hydra.run.dir={LONG}", "hydra.run.dir="),
    "the data's folder": (f"data.root={LONG}", "data.root="),
}


@pytest.mark.parametrize(
    ("override", "begins"),
    [*WRONG_LOGGING.values(), *LONG_NAMES.values()],
    ids=[*WRONG_LOGGING, *LONG_NAMES],
)  # fmt: skip
def test_what_a_job_would_stumble_over_at_its_start_is_one_line(
    override: str, begins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data=image_folder", "data.shape=[3,8,8]"] if "data.root" in override else []
    place = [] if "run.dir" in override else [f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as raised:
        check([*data, override, *place])
    assert raised.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(begins)


@pytest.mark.parametrize(
    "override", [f"{LOGS}.root.level=DEBUG", f"{LOGS}.handlers.console.level=10"]
)
def test_right_values_of_logging_are_accepted(override: str, tmp_path: Path) -> None:
    assert check([override, f"hydra.run.dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_a_name_of_many_bytes_is_cut_where_a_letter_ends() -> None:
    assert run_name("사" * 100) == "사" * 33
    assert run_name("caf\udce9") == "caf_"


def test_a_command_needs_only_the_folder_that_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``logs`` is a file here, so nothing can be made in it; root may write anywhere else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").write_text("")
    assert check([f"hydra.run.dir={tmp_path / 'run'}"])
    assert check(["-m", "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    for arguments in ([], ["-m", "seed=1,2"]):
        with pytest.raises(SystemExit):
            check(arguments)


def test_a_user_without_a_home_is_told_where_to_put_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match=r"^data\.cache_dir=null: .* set data\.cache_dir=FOLDER$"):
        default_folder()


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_class_whose_name_cannot_be_printed_is_named_all_the_same(
    tmp_path: Path, name: bytes
) -> None:
    (tmp_path / "dog").mkdir()
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH102, PTH118
    with pytest.raises(MissingDataError, match=r"is no name in UTF-8 that can be printed; rename"):
        read_layout(tmp_path)


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "dog").mkdir(parents=True)
    loop = tmp_path / "data" / "loop"
    loop.symlink_to("loop")
    for root in (tmp_path / "data", loop):
        with pytest.raises(MissingDataError, match=f"{loop}: "):
            read_layout(root)


@pytest.mark.parametrize(
    "argument",
    ["hydra.run.dir=/tmp/caf\udce9", "data.root='/tmp/caf\udce9'", "--config-dir=caf\udce9"],
)
def test_an_argument_that_is_not_utf_8_is_one_line(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        check([argument])
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(argument.replace("\udce9", r"\udce9") + ": is not UTF-8")


def test_a_working_directory_that_is_not_text_or_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, says in ((b"caf\xe9", "is not UTF-8"), (b"gone", "No such file or directory")):
        folder = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
        os.mkdir(folder)  # noqa: PTH102
        monkeypatch.chdir(os.fsdecode(folder))
        if name == b"gone":
            os.rmdir(folder)  # noqa: PTH106
        with pytest.raises(SystemExit) as raised:
            check(["seed=1"])
        assert raised.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("the working directory")
        assert says in line


def test_images_whose_names_are_not_utf_8_are_trained_on(tmp_path: Path, train: Train) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(8):
            file = os.path.join(os.fsencode(tmp_path / "data" / name), b"caf\xe9%d.png" % index)  # noqa: PTH118
            with open(file, "wb") as image:  # noqa: PTH123
                Image.new("RGB", (8, 8), (200 * label, 0, 0)).save(image, "png")
    result = train(
        "data=image_folder", f"data.root={tmp_path / 'data'}", "data.shape=[3,8,8]",
        "data.batch_size=4", "data.memory_gib=1e-9", f"data.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert result["steps"] > 0


SURROUNDINGS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that cannot be written": {"HOME": "/proc/1", "XDG_CACHE_HOME": None},
    "the C locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "a notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_training_in_such_surroundings_is_quiet_and_whole(tmp_path: Path, name: str) -> None:
    """In a copy whose path has a space, from a working directory of its own."""
    home = tmp_path / "my projects" / "convträin"
    for part in ("convtrain", "configs"):
        shutil.copytree(REPOSITORY / part, home / part, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(REPOSITORY / "train.py", home)
    changes = SURROUNDINGS[name]
    environment = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    environment = {k: v for k, v in environment.items() if changes.get(k, "") is not None}
    tiny = ("trainer=cpu", "data.limit=64", "trainer.max_epochs=1", "callbacks.progress_bar=false")
    for command in (
        [str(home / "train.py"), *tiny, "hydra.run.dir=a run"],
        ["-m", "convtrain", "gradients", "a run"],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
            env={**environment, "PYTHONPATH": str(home)}, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        assert "Traceback" not in done.stderr
    assert (tmp_path / "a run" / "result.json").is_file()
