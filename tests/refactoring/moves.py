"""Which functions and classes does a change add, take away or alter? ``make moves BASE=COMMIT``.

A move alters none. Docstrings, comments, formatting, the file that something is in, and the
rooms that it imports from do not count. Attributes of classes and the constants of modules do.
"""

import argparse
import ast
import difflib
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.refactoring.checkout import REPOSITORY, default_base, full_hash

Definition = tuple[str, str]
"""A name, such as ``Run.require``, and what it is, as source without docstrings."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def definitions(source: str) -> Iterator[Definition]:
    """Yield every function, class and constant of a module, methods on their own."""
    for node in ast.parse(source).body:
        yield from _definitions(node, "")


def _definitions(node: ast.stmt, owner: str) -> Iterator[Definition]:
    if isinstance(node, FUNCTIONS):
        yield owner + node.name, _text(node)
    elif isinstance(node, ast.ClassDef):
        parts = [part for part in node.body if isinstance(part, (*FUNCTIONS, ast.ClassDef))]
        for part in parts:
            yield from _definitions(part, f"{owner}{node.name}.")
        node.body = [part for part in node.body if part not in parts]
        yield owner + node.name, _text(node)
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    elif not isinstance(node, ast.Import | ast.ImportFrom) and not _is_text(node):
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        yield names[0] if names else type(node).__name__, _text(node)


class _Bare(ast.NodeTransformer):
    """Removes docstrings, and what a function imports from other rooms."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not _is_text(part) and not _is_own_import(part)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        return super().generic_visit(node)


def _is_own_import(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "convtrain"


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _text(node: ast.stmt) -> str:
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(node)))


def sources(commit: str | None) -> Iterator[str]:
    """Yield the modules of ``convtrain`` at a commit; those of the working tree for None."""
    if commit is None:
        for path in sorted((REPOSITORY / "convtrain").rglob("*.py")):
            yield path.read_text()
        return
    git = ["git", "-C", str(REPOSITORY)]
    listed = subprocess.check_output(
        [*git, "ls-tree", "-r", "--name-only", commit, "convtrain"], text=True
    )
    for name in listed.splitlines():
        if Path(name).suffix == ".py":
            yield subprocess.check_output([*git, "show", f"{commit}:{name}"], text=True)


def compare(before: Iterable[str], after: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield what differs between two lists of modules: name, text before, text after.

    A definition that is alike in both is left out, as often as it is there. Others are paired by
    their names; a text is empty where there is no partner.
    """
    old, new = (Counter(d for source in s for d in definitions(source)) for s in (before, after))
    left: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, more in enumerate((old - new, new - old)):
        for name, text in more.elements():
            left[name][side].append(text)
    for name, (gone, come) in sorted(left.items()):
        for number in range(max(len(gone), len(come))):
            was, now = ("".join(side[number : number + 1]) for side in (gone, come))
            yield name, was, now


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.refactoring.moves", description=__doc__)
    parser.add_argument("--base", default="", help="a commit; where this branch left main")
    parser.add_argument("--new", default="", help="another one; the working tree if left out")
    parser.add_argument("--diff", action="store_true", help="show what is altered, line by line")
    chosen = parser.parse_args()
    base = full_hash(chosen.base or default_base())
    new = full_hash(chosen.new) if chosen.new else None
    found = list(compare(sources(base), sources(new)))
    kinds = Counter(_show(*each, diff=chosen.diff) for each in found)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("added", "taken away", "altered"))
    print(f"{base[:10]} against {new[:10] if new else 'working tree'}: {counts}")
    return int(bool(found))


def _show(name: str, before: str, after: str, *, diff: bool) -> str:
    kind = "altered" if before and after else "taken away" if before else "added"
    print(f"{kind:10}  {name}")
    if diff and kind == "altered":
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
        print("\n".join(f"    {line}" for line in list(lines)[2:]))
    return kind


if __name__ == "__main__":
    sys.exit(main())
