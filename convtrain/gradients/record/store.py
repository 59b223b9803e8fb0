"""The record on disk: Parquet files that pandas, polars and DuckDB open directly.

In the run's directory, each table is a folder of parts, which are written once::

    gradients/steps/000000000001-000000000050.parquet        one row for each step
    gradients/parameters/000000000001-000000000050.parquet   one for each step and parameter
    gradients/layers/...                                     sampled steps: outputs of each layer
    gradients/histograms/...                                 sampled steps: log-magnitude histograms
    gradients/tensors/000000000001.safetensors               chosen steps: whole gradients
    gradients/graph-000000000001.json                        each layer's grad_fn, next functions
    gradients/parameters.json                                shapes, dtypes, tied parameters
    gradients/alarms.jsonl                                   one alarm a line

A part is named by its first and last step. It gets that name once it is whole on the disk, so a
killed process loses only what it had not written yet.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from convtrain.errors import MissingDataError, TrainingError, first_line
from convtrain.process.atomic import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

Column: TypeAlias = Sequence[object] | np.ndarray | pa.Array

FOLDER = "gradients"
TENSORS = "tensors"
ALARMS, GRAPHS = "alarms.jsonl", "graph-*.json"
ROWS_PER_PIECE = 100_000
STRINGS = pa.dictionary(pa.int32(), pa.string())

TABLES: dict[str, dict[str, pa.DataType]] = {
    "steps": {
        "step": pa.int64(),  # optimiser steps, counted from 1
        "epoch": pa.int32(),
        "time": pa.float64(),  # seconds since 1970
        "optimizer": pa.int32(),
        "micro_batches": pa.int32(),
        "lr": pa.list_(pa.float64()),  # one for each parameter group
        "loss": pa.float32(),
        "loss_scale": pa.float32(),
        "skipped": pa.bool_(),  # by the scaler of mixed precision
        "norm": pa.float32(),  # all gradients together, before clipping
        "clipped_norm": pa.float32(),  # after clipping
        "clip_coefficient": pa.float32(),
        "nonfinite": pa.int32(),  # parameters whose gradient holds NaN or infinity
        "first_nonfinite": STRINGS,
    },
    "parameters": {"step": pa.int64(), "parameter": STRINGS, "norm": pa.float32()},
    "layers": {"step": pa.int64(), "layer": STRINGS},
    "histograms": {
        "step": pa.int64(),
        "parameter": STRINGS,
        "counts": pa.list_(pa.int32()),
        **dict.fromkeys(("nan", "posinf", "neginf", "zero", "underflow", "overflow"), pa.int64()),
    },
}
"""The tables, and their columns that are not statistics.

A statistic is a float32 column of parameters, and ``value_`` and ``gradient_`` columns of layers.
A detail that a tier does not record has no column.
"""

FORMER_NAMES = {"deviation": "std", "zeros": "zero_fraction"}
"""Names of statistics in older records; :func:`load` returns the current ones."""

KEYS = ("step", "parameter", "layer")
PART = re.compile(r"[0-9]+-[0-9]+\.parquet")


class Store:
    """Writes the parts of a run's record.

    With ``in_thread``, files are only encoded until :meth:`start_writing`. The thread then only
    waits for the disk: two threads that run Python would contend for the GIL.
    """

    def __init__(self, run_dir: Path | str, *, in_thread: bool = False) -> None:
        self.folder = Path(run_dir) / FOLDER
        self._thread = ThreadPoolExecutor(1, "gradient-record") if in_thread else None
        self._encoded: list[tuple[Path, bytes | pa.Buffer]] = []
        self._writing: Future[None] | None = None
        self.bytes_written = 0

    def append(self, table: str, columns: Mapping[str, Column]) -> None:
        """Write one part; its rows are in the order of their steps."""
        types = dict(TABLES[table])
        for statistic in columns:
            types.setdefault(statistic, pa.float32())
        data = pa.table({n: _as_array(columns[n], t) for n, t in types.items() if n in columns})
        if data.num_rows:
            steps = data["step"]
            self._write_part(table, data, steps[0].as_py(), steps[-1].as_py())

    def keep_until(self, step: int) -> None:
        """Delete what was recorded after ``step``, from which a run resumes."""
        for table in TABLES:
            for path in parts_of(self.folder / table):
                first, last = _steps_of(path)
                if last <= step:
                    continue
                if first <= step and (data := _read_part(path)) is not None:
                    data = data.filter(pc.less_equal(data["step"], step))
                    self._write_part(table, data, first, data["step"][-1].as_py())
                path.unlink()
        files = [*(self.folder / TENSORS).glob("*.safetensors"), *self.folder.glob(GRAPHS)]
        for path in files:
            number = path.stem.removeprefix("graph-")
            if number.isdecimal() and int(number) > step:
                path.unlink()
        path = self.folder / ALARMS
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        kept = [line for line in lines if _step_of_alarm(line) <= step]
        if kept != lines:
            self.write_text(ALARMS, "".join(kept))

    def last_graph(self) -> dict[str, list[str]]:
        """Return the graph of grad_fns that was written last, or an empty one."""
        paths = sorted(self.folder.glob(GRAPHS))
        return dict(json.loads(paths[-1].read_text())) if paths else {}

    def write_tensors(self, step: int, tensors: Mapping[str, "Tensor"]) -> None:
        """Write dense tensors of a step; complex numbers become (real, imaginary) pairs."""
        from safetensors.torch import save
        from torch import view_as_real

        pairs = {n: view_as_real(t.resolve_conj()) for n, t in tensors.items() if t.is_complex()}
        real = {**tensors, **pairs}
        content = save({name: tensor.cpu().contiguous() for name, tensor in real.items()})
        self._write(self.folder / TENSORS / f"{step:012d}.safetensors", content)

    def write_text(self, name: str, text: str) -> None:
        self._write(self.folder / name, text.encode())

    def start_writing(self) -> None:
        """Let the thread write the encoded files; call :meth:`wait` before adding more."""
        if self._thread is not None:
            self._writing = self._thread.submit(self._write_files)

    def wait(self) -> None:
        """Wait until all files are on the disk; raise TrainingError if one cannot be written."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except TrainingError as error:
            raise TrainingError(f"{error}; recorder=off trains without a record") from error

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def _write_files(self) -> None:
        encoded, self._encoded = self._encoded, []
        for path, content in encoded:
            with atomic_write(path) as writer:
                writer.write(content)
            self.bytes_written += writer.size

    def _write_part(self, table: str, data: pa.Table, first: int, last: int) -> None:
        content = pa.BufferOutputStream()
        pq.write_table(
            data,
            content,
            use_dictionary=[column for column in KEYS if column in data.column_names],
            compression="lz4",
            write_page_checksum=True,
            write_statistics=False,  # a part is read whole
            store_schema=False,  # a part of few rows would double in size
        )
        self._write(self.folder / table / f"{first:012d}-{last:012d}.parquet", content.getvalue())

    def _write(self, path: Path, content: bytes | pa.Buffer) -> None:
        self._encoded.append((path, content))
        if self._thread is None:
            self._write_files()


def load(run_dir: Path | str, table: str = "parameters") -> pa.Table:
    """Return one table of a run's record, in the order of steps: ``load(run).to_pandas()``.

    Each step is there once. A part that cannot be read is left out, with a warning that names it.

    Args:
        table: ``steps``, ``parameters``, ``layers`` or ``histograms``.

    Raises:
        MissingDataError: there is no record, or no such table in it.
    """
    if table not in TABLES:
        raise MissingDataError(f"table={table}: a gradient record has {', '.join(TABLES)}")
    return pa.concat_tables(load_in_pieces(run_dir, table), promote_options="permissive")


def load_in_pieces(run_dir: Path | str, table: str) -> Iterator[pa.Table]:
    """Yield the table that :func:`load` returns, in pieces of whole steps, to save memory."""
    pieces: list[pa.Table] = []
    rows = last = 0
    for path in parts_of(Path(run_dir) / FOLDER / table):
        if (part := _read_part(path)) is None:
            continue
        pieces.append(part.filter(pc.greater(part["step"], last)))
        last = max(last, part["step"][-1].as_py())
        rows += pieces[-1].num_rows
        if rows > ROWS_PER_PIECE:
            yield pa.concat_tables(pieces, promote_options="permissive")
            pieces, rows = [], 0
    if pieces:
        yield pa.concat_tables(pieces, promote_options="permissive")
    if not last:
        raise MissingDataError(
            f"{run_dir}: no gradient record with a table of {table}; "
            "train with recorder=norms, stats, full or debug"
        )


def parts_of(folder: Path) -> list[Path]:
    """Return a table's parts, in the order of their steps."""
    return sorted(path for path in folder.glob("*.parquet") if PART.fullmatch(path.name))


def _read_part(path: Path) -> pa.Table | None:
    try:
        return _checked(
            path, pq.read_table(path, partitioning=None, page_checksum_verification=True)
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        why = first_line(error).rstrip(".")
        warnings.warn(f"{path}: left out, it cannot be read ({why})", stacklevel=3)
        return None


def _checked(path: Path, data: pa.Table) -> pa.Table:
    """Refuse what the pages' checksums do not cover: a damaged footer, or a foreign file."""
    types = TABLES[path.parent.name]
    if missing := [name for name in types if name in KEYS and name not in data.column_names]:
        raise ValueError(f"it has no column {missing[0]}")
    if not data.num_rows:
        raise ValueError("it has no rows")
    data.validate(full=True)
    data = data.rename_columns([_present_name(name) for name in data.column_names])
    data = data.cast(pa.schema([(f.name, types.get(f.name, f.type)) for f in data.schema]))
    if (data["step"][0].as_py(), data["step"][-1].as_py()) != _steps_of(path):
        raise ValueError("its steps are not those of its name")
    return data


def _present_name(column: str) -> str:
    what, underscore, name = column.rpartition("_")
    return f"{what}{underscore}{FORMER_NAMES.get(name, name)}"


def _steps_of(path: Path) -> tuple[int, int]:
    first, last = path.stem.split("-")
    return int(first), int(last)


def _step_of_alarm(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a kill cut the line off


def _as_array(values: Column, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)
