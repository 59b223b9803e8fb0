"""A file that lists images with their labels and splits, by the rules of docs/data.md.

The check, which runs without torch, and the loader both call :func:`read_table`.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from convtrain.config.folders import SPLITS, as_classes
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
        for split in self.splits.keys() - {"train"}:
            in_split = self.classes_in(split)
            accept = "accept it with data.allow_missing_classes=true"
            if more := sorted(in_split - in_train):
                raise MissingDataError(
                    f"{self.where}: {split} has classes that train has not: {few(more)}; add rows, "
                    f"leave them out with {as_classes(sorted(in_train))}, or {accept}"
                )
            if missing := sorted(in_train - in_split):
                raise MissingDataError(
                    f"{self.where}: {split} has no images of {few(missing)}; add rows, leave them "
                    f"out with {as_classes(sorted(in_split))}, or {accept}"
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
        problem = f"cannot be read: {error}"
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
    seen, repeated = dict[str, tuple[str, tuple[str, ...]]](), list[str]()
    wrong = dict[str, list[int]]()  # what is wrong with a row, to the lines
    for line, cells in islice(_rows(text, delimiter), 1, None):
        if len(cells) != len(header):
            kind = (
                "more or fewer values than the first line; put quotes around one with a delimiter"
            )
            wrong.setdefault(kind, []).append(line)
            continue
        path, label, name = ("" if at is None else cells[at] for at in places.values())
        split = "train" if places["split"] is None else SPLIT_NAMES.get(name.lower())
        these = _labels(label, chosen.label_separator)
        path = os.path.normpath(os.path.join(folder, path.replace("\\", "/"))) if path else ""  # noqa: PTH118
        before = seen.get(path)
        if not path:
            kind = "no path"
        elif not these and chosen.label_separator is None:
            kind = "no label"
        elif split is None:
            kind = f"{f'the split {name}' if name else 'no split'}; allowed are train, val and test"
        elif before is not None and before[0] != split:
            kind = "an image that another split lists as well"
        elif before is not None and set(before[1]) != set(these):
            kind = "an image that an earlier row lists with another label"
        elif before is not None:
            repeated.append(path)
            continue
        else:
            seen[path] = split, these
            splits.setdefault(split, []).append(len(files))
            files.append(path)
            labels.append(these)
            continue
        wrong.setdefault(kind, []).append(line)
    problems = [f"{_counted(lines)} {what}" for what, lines in wrong.items()]
    if not problems and "train" not in splits:
        others = f", only {', '.join(splits)}" if splits else ""
        problems = [f"lists no images to train with{others}"]
    if problems:
        raise MissingDataError(f"{where}: {'; '.join(problems)}")
    in_order = {split: splits[split] for split in SPLITS if split in splits}
    return Table(where, files, labels, in_order, repeated)


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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(values := [cell.strip() for cell in cells]):
            yield reader.line_num, values


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
