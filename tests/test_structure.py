"""The house rules that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "convtrain"
ORDER = (
    "errors",
    "text",
    "program",
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
    "pages",
    "report",
    "sweeps",
    "assembly",
    "pipeline",
    "forecast",
    "launch",
    "use",
    "verbs",
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


@pytest.mark.parametrize("path", sorted((PACKAGE / "pages").glob("*.py")), ids=lambda p: p.name)
def test_pages_are_drawn_without_torch_and_matplotlib(path: Path) -> None:
    """Every run writes one, and ``compare`` and ``report`` answer at once."""
    heavy = set(HEAVY) - {"numpy"}
    assert not [module for module, _ in imports(path) if module.split(".")[0] in heavy]


def circles(imported: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of files that import one another, directly or through others."""
    reached = {}
    for start in imported:
        found, ahead = set(), [start]
        while ahead:
            new = imported[ahead.pop()] - found
            found |= new
            ahead += new
        reached[start] = found
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in reached}
    return [set(group) for group in groups if group]


def test_no_files_import_one_another() -> None:
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    imported = {}
    for name, path in names.items():
        tree = ast.walk(ast.parse(path.read_text()))
        taken = {
            f"{n.module}.{a.name}" for n in tree if isinstance(n, ast.ImportFrom) for a in n.names
        }
        taken |= {module for module, _ in imports(path)}
        imported[name] = (taken & names.keys()) - {name, "convtrain"}  # which imports when asked
    found = circles(imported)
    assert found == []


VAGUE = (
    "details", "mirror", "rows", "folding", "surroundings", "usual", "words", "plain", "names",
    "anchors", "agreement", "utils", "helpers", "common", "misc",
)  # fmt: skip
"""Names that do not tell what a file is for."""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_files_name_tells_what_it_is_for(path: Path) -> None:
    assert path.stem not in VAGUE


MOST_LINES = 300
REASON = "one file because"
"""Words in the docstring of a longer file, which go on to say why it is not two."""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_for_and_stays_short(path: Path) -> None:
    text = path.read_text()
    header = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    assert header, f"{path} has no docstring"
    if REASON not in header.lower():
        lines = len(text.splitlines())
        assert lines <= MOST_LINES, f"{path} has {lines} lines: split it, or write {REASON!r} ..."


MOST_ANY = {
    "loose modules": 3,
    "config": 8,
    "run": 4,
    "command": 3,
    "layers": 4,
    "models": 8,
    "data": 4,
    "training": 7,
    "gradients": 16,
    "launch": 2,
}
"""How often ``Any`` may be written in each room; below 100 in all. Lower a number if you can."""


def room_of(path: Path) -> str:
    return "loose modules" if path.parent == PACKAGE else path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("room", sorted(set(map(room_of, MODULES))))
def test_values_have_types(room: str) -> None:
    """``object``, a Protocol, a TypedDict or the type itself says more than ``Any``."""
    texts = [path.read_text() for path in MODULES if room_of(path) == room]
    assert sum(len(re.findall(r"\bAny\b", text)) for text in texts) <= MOST_ANY.get(room, 0)


def test_any_is_rare() -> None:
    assert sum(MOST_ANY.values()) < 100


def test_only_one_module_takes_the_first_line_of_an_exception() -> None:
    pattern = re.compile(r"str\(\w*(error|exception|cause|exc|e)\w*\)[^\n]*\.splitlines\(\)")
    found = [path for path in MODULES if pattern.search(path.read_text())]
    assert found == [PACKAGE / "errors.py"], "use convtrain.errors.first_line"


FILES_OF_A_RUN = re.compile(
    r"(.*/)?(config\.yaml|overrides\.yaml|provenance\.json|result\.json|error\.txt|last\.ckpt)"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_run_knows_the_files_of_a_run(path: Path) -> None:
    """Whoever asks for a run's state asks ``Run``; a message may name a file in a sentence."""
    if path != PACKAGE / "run/directory.py":
        constants = (node for node in ast.walk(ast.parse(path.read_text())))
        texts = [n.value for n in constants if isinstance(n, ast.Constant)]
        named = [text for text in texts if isinstance(text, str)]
        assert not [text for text in named if FILES_OF_A_RUN.fullmatch(text)]


def test_the_six_steps_are_in_one_short_file_in_their_order() -> None:
    text = (PACKAGE / "training" / "task.py").read_text()
    assert len(text.splitlines()) < 170
    steps = re.findall(r"# Step (\d): ([\w' ]+)[.,]", text)
    assert steps == [
        ("1", "a network with learnable weights is defined"),
        ("2", "the dataset's batches are iterated"),
        ("3", "the network processes a batch"),
        ("4", "the loss measures how far the logits are from the targets"),
        ("5", "gradients are propagated back to the weights"),
        ("6", "the weights are updated"),
    ]


def test_few_modules_stand_beside_the_pipeline() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "pipeline"}
    assert len(loose) <= 5, loose
    assert len((PACKAGE / "pipeline.py").read_text().splitlines()) < 200
