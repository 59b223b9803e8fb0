"""Do the golden runs still end with the same bits? ``make same``, or ``make same BASE=COMMIT``.

The code of BASE trains the golden runs (``golden.py``), and the code of the working tree repeats
each with ``python -m convtrain rerun``, whose verdict is checked against the files of both runs. A
run that SIGKILL ended under BASE is resumed, and has to end as the one that BASE never interrupted.
Composed configurations and error lines are compared as text; those may differ on purpose.

What BASE did is kept in ``~/.cache/convtrain/same/COMMIT`` and serves the next time.
"""

import argparse
import difflib
import json
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.refactoring import checkout, golden, texts
from tests.refactoring.bits import amount, differences
from tests.refactoring.checkout import BrokenCodeError, Code, appearing_whole

AT_ONCE = min(2, os.cpu_count() or 1)
SHOWN_LINES = 40


@dataclass(frozen=True)
class Row:
    """What was compared for a golden run, and what differs: nothing where the bits are the same."""

    run: str
    compared: str
    found: Sequence[str]


class Comparison:
    """Two versions of the code, and the folders of their golden runs.

    Args:
        base: trains the golden runs.
        new: repeats them.
        kept: a folder for what ``base`` does, which is not done again where it is there.
        scratch: a folder for what ``new`` does.
    """

    def __init__(self, base: Code, new: Code, kept: Path, scratch: Path) -> None:
        self.base, self.new, self.kept, self.scratch = base, new, kept, scratch

    def original(self, name: str) -> Path:
        """Return the folder of what ``base`` trains; another one if the run is defined anew."""
        typed = repr((golden.command(name), golden.KILLED_AT))
        return self.kept / f"{name}-{checkout.digest(typed)}"

    def train_base(self, name: str) -> str | None:
        """Train a golden run if it is not there; return why not, such as a key that is new."""
        if not self.original(name).is_dir():
            try:
                with appearing_whole(self.original(name)) as part:
                    self.base.train(name, part)
            except BrokenCodeError as error:
                return str(error).strip().splitlines()[-1]
        return None

    def compare(self, name: str) -> list[Row]:
        if name == "killed":
            return [self._resume()]
        if name == "sweep":
            jobs = sorted(path.parent for path in self.original(name).glob("*/result.json"))
            if len(jobs) != 4:
                return [Row(name, f"{len(jobs)} jobs", ["4 jobs were to be trained"])]
            return [self._rerun(job, f"sweep/{number}") for number, job in enumerate(jobs, 1)]
        return [self._rerun(self.original(name), name)]

    def _rerun(self, original: Path, name: str) -> Row:
        again = self.scratch / name
        status, said = self.new.run(
            "-m", "convtrain", "rerun", original, "--out", again, cwd=self.scratch, expect=None
        )
        found = differences(original, again) if (again / "result.json").is_file() else []
        if status or found:
            verdict = said[said.find("not the same bits:") :] if status == 1 else said
            found = [f"rerun ends with status {status}:", *verdict.splitlines()[-20:], *found]
        return Row(name, f"rerun: {amount(original)}", found)

    def _resume(self) -> Row:
        run = shutil.copytree(self.original("killed"), self.scratch / "killed")
        uninterrupted = self.original("uninterrupted")
        found = []
        if (run / "result.json").exists() or not (run / "checkpoints" / "last.ckpt").exists():
            found = ["killed: BASE left no run that can be resumed"]
        else:
            words = (self.new.folder / "train.py", f"resume={run}")
            status, said = self.new.run(*words, cwd=self.scratch, expect=None)
            found = said.strip().splitlines()[-8:] if status else differences(uninterrupted, run)
        return Row("killed", f"resumed: {amount(uninterrupted)}", found)

    def texts_of(self, code: Code, folder: Path) -> dict[str, str]:
        """Return what a version says to each command; kept in ``folder`` for the next time."""
        typed = json.dumps(texts.commands())
        stored = folder / f"texts-{checkout.digest(typed)}.json"
        if not stored.is_file():
            script = Path(texts.__file__)
            with tempfile.TemporaryDirectory() as cwd:
                out = Path(cwd) / "said.json"
                code.run(script, code.folder, out, cwd=Path(cwd), typed=typed)
                shutil.move(out, stored)
        return dict(json.loads(stored.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.refactoring.same", description=__doc__)
    parser.add_argument("--base", default="", help="a commit; where this branch left main")
    parser.add_argument("--new", default="", help="another one; the working tree if left out")
    parser.add_argument("--only", nargs="+", metavar="RUN", help=", ".join(golden.names()))
    parser.add_argument("--fresh", action="store_true", help="train the golden runs of BASE again")
    chosen = parser.parse_args()
    unknown = {*(chosen.only or ())} - {*golden.names()}
    if unknown:
        parser.error(f"--only {' '.join(sorted(unknown))}: choose from {', '.join(golden.names())}")

    started, cache = time.monotonic(), checkout.cache_folder()
    commit = checkout.full_hash(chosen.base or checkout.default_base())
    base = checkout.code_of(commit, cache)
    new = checkout.code_of(checkout.full_hash(chosen.new) if chosen.new else None, cache)
    kept = cache / commit / checkout.setting()
    if chosen.fresh:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    print(f"{base.name} against {new.name}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(base, new, kept, Path(scratch))
        rows, said = _in_parallel(comparison, chosen.only)
    if said is not None:
        _print_texts(*said, kept / "texts.diff")
    if not rows:
        raise BrokenCodeError(f"{base.name} trains no golden run")
    wrong = sum(bool(row.found) for row in rows)
    seconds = time.monotonic() - started
    print(f"\n{len(rows) - wrong} of {len(rows)} runs have the same bits; {seconds:.0f} s")
    return int(bool(wrong))


def _in_parallel(
    comparison: Comparison, only: Sequence[str] | None
) -> tuple[list[Row], tuple[dict[str, str], dict[str, str]] | None]:
    """Compare the golden runs, and print each row when it is there; compare texts if all are."""
    names = [name for name in golden.names() if not only or name in only]
    if "killed" in names and "uninterrupted" not in names:
        names.append("uninterrupted")
    rows = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, reason in zip([*names], pool.map(comparison.train_base, [*names]), strict=True):
            if reason is not None:
                print(f"{name:24} left out, because {comparison.base.name} says: {reason}")
                names.remove(name)
        compared = pool.map(comparison.compare, names)
        saying = [] if only else [
            pool.submit(comparison.texts_of, comparison.base, comparison.kept),
            pool.submit(comparison.texts_of, comparison.new, comparison.scratch),
        ]  # fmt: skip
        for row in (row for found in compared for row in found):
            rows.append(row)
            print(f"{row.run:24} {row.compared:56} {'DIFFERS' if row.found else 'same'}")
            print(*(f"    {line}\n" for line in row.found), sep="", end="", flush=True)
    return rows, (saying[0].result(), saying[1].result()) if saying else None


def _print_texts(base: dict[str, str], new: dict[str, str], file: Path) -> None:
    lines = list(_text_differences(base, new))
    if lines:
        file.write_text("".join(f"{line}\n" for line in lines))
        print("\n".join(["", *lines[:SHOWN_LINES]]))
        print(f"texts differ; all {len(lines)} lines of the difference are in {file}")
    else:
        print(f"{len(base)} composed configurations and mistakes: the same text")


def _text_differences(base: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for typed, before in base.items():
        a, b = before.splitlines(), new.get(typed, "").splitlines()
        if a != b:
            yield textwrap.shorten(f"$ python train.py {typed}", 200)
            yield from list(difflib.unified_diff(a, b, n=0, lineterm=""))[2:]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenCodeError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
