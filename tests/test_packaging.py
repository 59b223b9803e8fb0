"""What installers and readers of the metadata rely on."""

import re
import sys
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from convtrain import __version__
from tests.conftest import REPOSITORY

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


@pytest.fixture
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return found


def test_the_lowest_versions_are_those_that_the_project_allows(project: dict[str, Any]) -> None:
    lines = (REPOSITORY / "lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = project["optional-dependencies"]
    shipped = [*project["dependencies"], *(r for e in extras if e != "dev" for r in extras[e])]
    for text in (*shipped, *extras["dev"]):
        asked = Requirement(text)
        if asked.name == "convtrain" or (text not in shipped and asked.name not in pins):
            continue
        (bound,) = asked.specifier  # no upper bounds
        assert bound.operator == ">=", text
        assert Version(pins.pop(asked.name)) == Version(bound.version), text
    assert not pins


def test_the_metadata_agree(project: dict[str, Any]) -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert project["version"] == cited["version"] == __version__
    assert __version__ in (REPOSITORY / "CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "type", "authors"} <= cited.keys()
    assert cited["license"] == "Apache-2.0"
    assert (
        "Apache License\n                           Version 2.0"
        in (REPOSITORY / "LICENSE").read_text()
    )
    for file in project["license-files"]:
        assert (REPOSITORY / file).is_file()
    assert (REPOSITORY / "convtrain" / "py.typed").is_file()
    minor = [int(n) for n in re.findall(r"Python :: 3\.(\d+)", str(project["classifiers"]))]
    assert minor == [10, 11, 12, 13]
    assert project["requires-python"] == ">=3.10"
