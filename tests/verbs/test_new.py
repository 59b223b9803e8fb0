"""``new`` writes a project, or says in one line why it does not."""

from pathlib import Path

import pytest

from convtrain.__main__ import main

Capture = pytest.CaptureFixture[str]


def test_a_project_has_the_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "sub/My stripes-2"]) == 0
    project = tmp_path / "sub" / "My stripes-2"
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    package = {f"my_stripes_2/{name}.py" for name in ("dataset", "layer", "loss", "callback")}
    assert files == {
        *package, "my_stripes_2/__init__.py", "tests/test_my_stripes_2.py", "Makefile",
        "README.md", ".gitignore", "configs/experiment/mine.yaml", "configs/network/mine.yaml",
    }  # fmt: skip
    assert not [name for name in files if "mypackage" in (project / name).read_text()]
    printed = capsys.readouterr().out
    assert "cd 'sub/My stripes-2' && " in printed
    assert " train experiment=mine\n" in printed
    capsys.readouterr()
    assert main(["check", f"--config-dir={project / 'configs'}", "experiment=mine"]) == 2
    (line, *_) = capsys.readouterr().err.splitlines()
    assert line.endswith("type the command in the folder that holds it, or install it")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    assert main(["check", "experiment=mine"]) == 0
    assert "data=custom, network=mine" in capsys.readouterr().out
    assert main(["new", str(project)]) == 2
    assert capsys.readouterr().err.startswith(f"{project}: is not empty; give a folder that")


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("taken/file", "taken/file: is a file; "),
        ("2024", "2024: 2024 cannot be the name of a package; "),
        ("import", "import: import cannot be the name of a package; "),
        ("configs", "configs: configs cannot be the name of a package; "),
        ("a/random", "a/random: random belongs to Python, "),
        ("torch", "torch: torch is a library that "),
        ("pluggy", "pluggy: a package pluggy is installed, "),
        ("taken/file/stripes", "taken/file/stripes: "),
    ],
)
def test_a_folder_that_cannot_be_a_project_is_one_line(
    folder: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert main(["new", folder]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "file"]
