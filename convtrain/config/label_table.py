"""A file that lists images with their labels and splits, by the rules of docs/data.md.

The check, which runs without torch, and the loader both call :func:`read_table`.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from convtrain.config.folders import ACCEPT, SPLITS, as_classes
from convtrain.errors import MissingDataError, did_you_mean, few, one_line

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image",
             "image_path"),
    "label": ("label", "labels", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset", "partition"),
}  # fmt: skip
"""What a column holds, to the names that it may have; the first of them comes before the others."""
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}
SPLIT_NAMES = {
    name: split for split, names in {**SPLITS, "train": ("train", "training")}.items()
    for name in names
} | {"testing": "test"}  # fmt: skip
OTHER_SPLIT = "an unknown split"
OTHER_LENGTH = "more or fewer values than the first line; quote one with a delimiter"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # which no name of a class may have
END = "\x04"  # a row of its own behind the last line, unless a quote is open there
MAX_NAMED = 5  # rows or files in a line


class TableFormat(NamedTuple):
    """The keys of ``data`` that say how to read a file of labels."""

    file: str
    root: str | None  # folder that paths start from; None is that of the file
    path_column: str | None
    label_column: str | None
    split_column: str | None
    delimiter: str | None
    label_separator: str | None


class Table(NamedTuple):
    """The rows of a file of labels, in its order."""

    where: str  # the override that names the file
    files: list[str]
    labels: list[tuple[str, ...]]  # exactly one, unless data.label_separator is set
    splits: dict[str, list[int]]  # indices of rows by split; of train alone without such a column
    repeated: list[str]  # files of rows that are left out because they equal an earlier one

    @property
    def classes(self) -> list[str]:
        """The sorted labels, in the order of their indices."""
        return sorted(set().union(*self.labels))

    def classes_in(self, split: str) -> set[str]:
        return set().union(*(self.labels[row] for row in self.splits[split]))

    def refuse_missing_classes(self) -> None:
        """Raise MissingDataError for classes that only some of the splits have."""
        in_train = self.classes_in("train")
        for split in (each for each in self.splits if each != "train"):
            in_split = self.classes_in(split)
            if more := sorted(in_split - in_train):
                raise MissingDataError(
                    f"{self.where}: {split} has classes that train has not: {few(more)}; add rows, "
                    f"leave them out with {as_classes(sorted(in_train))}, or {ACCEPT}"
                )
            if missing := sorted(in_train - in_split):
                raise MissingDataError(
                    f"{self.where}: {split} has no images of {few(missing)}; add rows, leave them "
                    f"out with {as_classes(sorted(in_split))}, or {ACCEPT}"
                )

    def refuse_missing_files(self) -> None:
        """Raise MissingDataError that counts the listed files that are not there."""
        missing = [file for file in self.files if not os.path.isfile(file)]  # noqa: PTH113 (speed)
        if missing:
            raise MissingDataError(
                f"{self.where}: {len(missing)} of the {len(self.files)} images that it lists are "
                f"no files: {few(missing, MAX_NAMED)}; set data.root=FOLDER, the folder that the "
                f"paths start from, or remove these rows"
            )


def read_table(chosen: TableFormat) -> Table:
    """Read a file of labels; whether its images exist is another question.

    Raises:
        MissingDataError: with all that is wrong with the file, counted and named in one line.
    """
    try:
        found = Path(chosen.file).stat()
        return _read(chosen, found.st_mtime_ns, found.st_size)
    except MissingDataError:
        raise
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
    except csv.Error as error:
        problem = f"cannot be read: {error}; write it again"
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        problem += "; set data.file=FILE, of columns path,label and perhaps split"
    raise MissingDataError(one_line(f"data.file={chosen.file[:200]}: {problem}"))


@lru_cache(maxsize=4)  # the check and the loader read one file, as do the jobs of a sweep
def _read(chosen: TableFormat, _changed: int, _size: int) -> Table:
    where = f"data.file={chosen.file}"
    text = Path(chosen.file).read_text(encoding="utf-8-sig")
    delimiter, header = _header(text, chosen, where)
    if not header:
        raise MissingDataError(f"{where}: is empty; begin it with a line such as path,label")
    places = {what: _place(what, header, chosen, where) for what in COLUMNS}
    folder = chosen.root or str(Path(chosen.file).parent)
    files, labels, splits = list[str](), list[tuple[str, ...]](), dict[str, list[int]]()
    seen, repeated = dict[str, _Row](), list[str]()
    others = dict[str, None]()  # splits that are none
    wrong = defaultdict[str, list[int]](list)  # what is wrong with a row, to the lines
    for line, cells in islice(_rows(text, delimiter), 1, None):
        if len(cells) != len(header):
            wrong[OTHER_LENGTH].append(line)
            continue
        path, label, split = ("" if at is None else cells[at] for at in places.values())
        if path:
            path = os.path.normpath(os.path.join(folder, path.replace("\\", "/")))  # noqa: PTH118
        split = "train" if places["split"] is None else SPLIT_NAMES.get(split.lower(), split)
        row = _Row(path, _labels(label, chosen.label_separator), split)
        before = seen.setdefault(path, row)
        if problem := _problem(row, before, needs_label=chosen.label_separator is None):
            wrong[problem].append(line)
            if problem == OTHER_SPLIT:
                others[split] = None
        elif before is not row:
            repeated.append(path)
        else:
            splits.setdefault(split, []).append(len(files))
            files.append(path)
            labels.append(row.labels)
    problems = [f"{_counted(lines)} {what}" for what, lines in wrong.items()]
    if others:
        problems.append(f"splits are train, val and test, and not {few(map(repr, others))}")
    if not problems and "train" not in splits:
        only = f", only {few(splits)}; add rows of the split train" if splits else "; add rows"
        problems = [f"lists no images to train with{only}"]
    if not problems and not any(labels):
        problems = ["lists no labels; add them to the column of labels"]
    if problems:
        raise MissingDataError(f"{where}: {'; '.join(problems)}")
    in_order = {split: splits[split] for split in SPLITS if split in splits}
    return Table(where, files, labels, in_order, repeated)


class _Row(NamedTuple):
    path: str
    labels: tuple[str, ...]
    split: str


def _problem(row: _Row, before: _Row, *, needs_label: bool) -> str:
    """Return what is wrong with a row; ``before`` is the first of the same image."""
    if not row.path:
        return "no path"
    if not row.labels and needs_label:
        return "no label"
    if any(map(CONTROL.search, row.labels)):
        return "a label with a line break or another control character"
    if row.split not in SPLITS:
        return OTHER_SPLIT
    if row.split != before.split:
        return "an image that another split lists as well"
    if {*row.labels} != {*before.labels}:
        return "an image that an earlier row lists with another label"
    return ""


def _header(text: str, chosen: TableFormat, where: str) -> tuple[str, list[str]]:
    """Return the delimiter and the names of the columns.

    The delimiter gives the first row a column of paths and one of labels, or the most columns.
    """
    tried = [chosen.delimiter] if chosen.delimiter else DELIMITERS
    headers = {
        delimiter: next((cells for _, cells in _rows(text, delimiter)), [])
        for delimiter in map(DELIMITERS.__getitem__, tried)
    }
    for delimiter, header in headers.items():
        if all(
            getattr(chosen, f"{what}_column") in header or {*map(str.lower, header)} & {*names}
            for what, names in COLUMNS.items()
            if what != "split"
        ):
            return delimiter, header
    return max(headers.items(), key=lambda found: len(found[1]))


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where a row ends, and its values; empty lines are left out."""
    ended, begins = io.StringIO(f"{text}\n{END}", newline=""), 1
    reader = csv.reader(ended, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if cells == [END]:
                return
            if any(values := [cell.strip() for cell in cells]):
                yield reader.line_num, values
            begins, last = reader.line_num + 1, begins
    except csv.Error as error:
        raise csv.Error(f"{error}, from line {begins} on; close its quote") from error
    raise csv.Error(f"line {last} opens a quote that no line closes")


def _place(what: str, header: Sequence[str], chosen: TableFormat, where: str) -> int | None:
    """Return the index of a column; None without one of splits."""
    key, typed = f"data.{what}_column", getattr(chosen, f"{what}_column")
    columns = f"{where} has the columns {few(header)}"
    if typed is not None:
        if typed not in header:
            raise MissingDataError(f"{key}={typed}: {columns}{did_you_mean(typed, header)}")
        found = [typed]
    else:
        by_name = {name: [c for c in header if c.lower() == name] for name in COLUMNS[what]}
        first, *others = by_name.values()
        found = first or [column for columns in others for column in columns]
    if len(found) > 1 or (found and header.count(found[0]) > 1):
        raise MissingDataError(
            f"{columns}, and {' or '.join(found)} may be the {what}; type {key}=NAME"
        )
    if not found and what != "split":
        raise MissingDataError(
            f"{columns}, and none is called {' or '.join(COLUMNS[what][:3])}; type {key}=NAME, or "
            f"begin the file with a line such as path,label"
        )
    return header.index(found[0]) if found else None


def _labels(cell: str, separator: str | None) -> tuple[str, ...]:
    if separator is None:
        return (cell,) if cell else ()
    return tuple(dict.fromkeys(filter(None, map(str.strip, cell.split(separator)))))


def _counted(lines: Sequence[int]) -> str:
    """Return how many rows there are, and their first lines."""
    plural = "s" * (len(lines) > 1)
    verb = "have" if len(lines) > 1 else "has"
    return f"{len(lines)} row{plural} (line{plural} {few(map(str, lines), MAX_NAMED)}) {verb}"
