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
    "config",
    "process",
    "run",
    "command",
    "layers",
    "network",
    "models",
    "data",
    "training",
    "gradients",
    "sweeps",
    "assembly",
    "pipeline",
    "forecast",
    "launch",
    "use",
)
HEAVY = ("torch", "torchvision", "pytorch_lightning", "numpy", "matplotlib", "sklearn")
MODULES = sorted(PACKAGE.rglob("*.py"))


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
    here = ORDER.index(path.relative_to(PACKAGE).with_suffix("").parts[0])
    for module, level in imports(path):
        assert level == 0, f"{path}: relative imports hide where things come from"
        if module.startswith("convtrain."):
            there = ORDER.index(module.split(".")[1])
            assert there <= here, f"{path} imports {module}, which comes later"


WITHOUT_TORCH = [
    path
    for name in ("config", "process", "run", "command")
    for path in sorted((PACKAGE / name).rglob("*.py"))
    if path != PACKAGE / "process/joining.py"  # the ranks meet in torch's own store
]


@pytest.mark.parametrize("path", WITHOUT_TORCH, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_rooms_before_the_layers_import_nothing_heavy(path: Path) -> None:
    assert not [m for m, _ in imports(path) if m.split(".")[0] in HEAVY]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_for_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} wants to be two files"
