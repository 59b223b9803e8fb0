"""The house rules that a machine can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "convtrain"
ORDER = (
    "errors",
    "text",
    "files",
    "imports",
    "output",
    "signals",
    "config.commands",
    "config.anchors",
    "config.section",
    "config.groups",
    "config.schema",
    "config.identity",
    "ranks",
    "runs.lock",
    "runs.strict_json",
    "runs.directory",
    "config",
    "joining",
    "layers",
    "declaration",
    "network",
    "summary",
    "catalogue",
    "models",
    "data",
    "training",
    "gradients",
    "runs",
    "sweeps",
    "assembly",
    "pipeline",
    "forecast",
    "launcher",
    "start",
    "job",
    "reproduce",
    "rerun",
)
HEAVY = ("torch", "torchvision", "pytorch_lightning", "numpy", "matplotlib", "sklearn")
MODULES = sorted(PACKAGE.rglob("*.py"))


GROUND_FLOOR = tuple(name for name in ORDER if "." in name)  # what all rooms may import


def room(module: str) -> str:
    """Return the room of a module, named from ``convtrain`` on; the ground floor is rooms too."""
    inside = (name for name in GROUND_FLOOR if f"{module}.".startswith(f"{name}."))
    return next(inside, module.split(".")[0])


def imports(path: Path, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the modules a file imports, and how many dots a relative import has."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_stands_before_it(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py") and path.parent == PACKAGE:
        pytest.skip("the package's own face")
    here = ORDER.index(room(".".join(path.relative_to(PACKAGE).with_suffix("").parts)))
    for module, level in imports(path):
        assert level == 0, f"{path}: relative imports hide where things come from"
        if module.startswith("convtrain."):
            there = ORDER.index(room(module.removeprefix("convtrain.")))
            assert there <= here, f"{path} imports {module}, which comes later"


@pytest.mark.parametrize("path", sorted((PACKAGE / "config").glob("*.py")), ids=lambda p: p.name)
def test_the_configuration_imports_nothing_heavy(path: Path) -> None:
    assert not [m for m, _ in imports(path) if m.split(".")[0] in HEAVY]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_for_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} wants to be two files"
