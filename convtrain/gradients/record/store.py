"""The record on disk: Parquet files that pandas, polars and DuckDB open directly.

Below the run's directory, in ``gradients/``, each table is a folder of parts written once::

    gradients/steps/000000000001-000000000050.parquet        one row a step
    gradients/parameters/000000000001-000000000050.parquet   one row a step and parameter
    gradients/layers/...                                     sampled steps: what each layer put out
    gradients/histograms/...                                 sampled steps: log-magnitude histograms
    gradients/tensors/000000000001.safetensors               chosen steps: whole gradients
    gradients/graph-000000000001.json                        each layer's grad_fn, and what is next
    gradients/parameters.json                                shapes, types, names of tied parameters
    gradients/alarms.jsonl                                   what went wrong, and when

A part is named by its first and last step. It appears under that name when it lies on the disk as
a whole, so a process that is killed loses what it had not written yet and nothing else.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from convtrain.errors import MissingDataError, first_line
from convtrain.process.atomic import atomic_write

FOLDER = "gradients"
TENSORS = "tensors"
ALARMS, GRAPHS = "alarms.jsonl", "graph-*.json"
ROWS_IN_A_PIECE = 100_000
NAMES = pa.dictionary(pa.int32(), pa.string())
STATISTICS = ("norm", "mean", "deviation", "minimum", "maximum", "zeros")
"""Of one tensor: L2 norm, mean, standard deviation, extremes, and the fraction that is zero."""

TABLES: dict[str, dict[str, pa.DataType]] = {
    "steps": {
        "step": pa.int64(),  # counted from 1: the steps that the optimiser has done
        "epoch": pa.int32(),
        "time": pa.float64(),  # seconds since 1970
        "optimizer": pa.int32(),
        "micro_batches": pa.int32(),
        "lr": pa.list_(pa.float64()),  # of each parameter group
        "loss": pa.float32(),
        "loss_scale": pa.float32(),
        "skipped": pa.bool_(),  # by the scaler of mixed precision
        "norm": pa.float32(),  # of all gradients together, before clipping
        "clipped_norm": pa.float32(),  # after it
        "clip_coefficient": pa.float32(),
        "nonfinite": pa.int32(),  # parameters whose gradient holds NaN or infinity
        "first_nonfinite": NAMES,
    },
    "parameters": {
        "step": pa.int64(),
        "parameter": NAMES,
        **dict.fromkeys(STATISTICS, pa.float32()),
        "update_ratio": pa.float32(),  # norm of the step's change / norm of the weights before it
        "cosine": pa.float32(),  # with the gradient of the step before
    },
    "layers": {
        "step": pa.int64(),
        "layer": NAMES,
        **{f"value_{name}": pa.float32() for name in STATISTICS},
        **{f"gradient_{name}": pa.float32() for name in STATISTICS},
    },
    "histograms": {
        "step": pa.int64(),
        "parameter": NAMES,
        "counts": pa.list_(pa.int32()),
        **dict.fromkeys(("nan", "posinf", "neginf", "zero", "underflow", "overflow"), pa.int64()),
    },
}
"""The tables and their columns. A column that a tier does not record is missing from its parts."""

KEYS = ("step", "parameter", "layer")
PART = re.compile(r"[0-9]+-[0-9]+\.parquet")
WRITING: dict[str, Any] = {
    "compression": "lz4",
    "write_page_checksum": True,
    "write_statistics": False,  # a part is read whole
    "store_schema": False,  # for TABLES has it, and a part of few rows would double in size
}
READING: dict[str, Any] = {"partitioning": None, "page_checksum_verification": True}


def _at_once(function: Callable[..., Any], *arguments: Any) -> None:
    function(*arguments)


class Store:
    """Writes the parts of a run's record.

    Args:
        run_dir: the run's directory; the record is its sub-folder ``gradients``.
        submit: calls a function, with its arguments, that puts a file on the disk; at once, or in
            a thread.
    """

    def __init__(self, run_dir: Path | str, submit: Callable[..., Any] = _at_once) -> None:
        self.folder, self._submit = Path(run_dir) / FOLDER, submit
        self.bytes_written = 0

    def append(self, table: str, columns: Mapping[str, Sequence[Any] | Any]) -> None:
        """Write one part. ``columns`` maps names to values, rows in the order of their steps."""
        types = TABLES[table]
        data = pa.table(
            {
                name: values if isinstance(values, pa.Array) else pa.array(values, types[name])
                for name, values in columns.items()
            }
        )
        if data.num_rows:
            steps = columns["step"]
            self._write(table, data, int(steps[0]), int(steps[-1]))

    def keep_until(self, step: int) -> None:
        """Forget what was recorded after ``step``, from where a resumed run goes on."""
        for table in TABLES:
            for path in parts_of(self.folder / table):
                first, last = _steps_of(path)
                if last <= step:
                    continue
                if first <= step and (data := _read_part(path)) is not None:
                    data = data.filter(pc.less_equal(data["step"], step))
                    self._write(table, data, first, int(data["step"][-1].as_py()))
                path.unlink()
        files = [*(self.folder / TENSORS).glob("*.safetensors"), *self.folder.glob(GRAPHS)]
        for path in sorted(files):
            number = path.stem.removeprefix("graph-")
            if number.isdecimal() and int(number) > step:
                path.unlink()
        self._keep_alarms_until(step)

    def _keep_alarms_until(self, step: int) -> None:
        path = self.folder / ALARMS
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        kept = [line for line in lines if _step_of_alarm(line) <= step]
        if kept != lines:
            self.write_text(ALARMS, "".join(kept))

    def last_graph(self) -> dict[str, list[str]]:
        """Return the graph of grad_fns that was written last; an empty one where none was."""
        paths = sorted(self.folder.glob(GRAPHS))
        return json.loads(paths[-1].read_text()) if paths else {}

    def write_tensors(self, step: int, tensors: Mapping[str, Any]) -> None:
        """Write whole tensors of a step, by name, as ``tensors/STEP.safetensors``.

        Complex ones are written as pairs of real and imaginary parts.
        """
        from safetensors.torch import save

        content = save({name: _plain(tensor) for name, tensor in tensors.items()})
        self._submit(self._replace, self.folder / TENSORS / f"{step:012d}.safetensors", content)

    def write_text(self, name: str, text: str) -> None:
        self._submit(self._replace, self.folder / name, text.encode())

    def _write(self, table: str, data: pa.Table, first: int, last: int) -> None:
        names = [column for column in KEYS if column in TABLES[table]]
        content = pa.BufferOutputStream()
        pq.write_table(data, content, use_dictionary=names, **WRITING)
        path = self.folder / table / f"{first:012d}-{last:012d}.parquet"
        self._submit(self._replace, path, content.getvalue())

    def _replace(self, path: Path, content: Any) -> None:
        with atomic_write(path) as writer:
            writer.write(content)
        self.bytes_written += writer.size


def load(run_dir: Path | str, table: str = "parameters") -> pa.Table:
    """Return one table of a run's record, in the order of steps: ``load(run).to_pandas()``.

    Each step is there once. A part that cannot be read is left out, with a warning that names it.

    Args:
        run_dir: the run's directory.
        table: ``steps``, ``parameters``, ``layers`` or ``histograms``; see :data:`TABLES`.

    Raises:
        MissingDataError: there is no record, or no such table in it.
    """
    if table not in TABLES:
        raise MissingDataError(f"table={table}: a gradient record has {', '.join(TABLES)}")
    return pa.concat_tables(load_in_pieces(run_dir, table), promote_options="permissive")


def load_in_pieces(run_dir: Path | str, table: str) -> Iterator[pa.Table]:
    """Yield what :func:`load` returns, in pieces of whole steps that take little memory.

    Raises:
        MissingDataError: there is no such table.
    """
    pieces: list[pa.Table] = []
    rows = last = 0
    for path in parts_of(Path(run_dir) / FOLDER / table):
        if (part := _read_part(path)) is None or not part.num_rows:
            continue
        pieces.append(part.filter(pc.greater(part["step"], last)))
        last = max(last, part["step"][-1].as_py())
        rows += pieces[-1].num_rows
        if rows > ROWS_IN_A_PIECE:
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
        return _checked(path, pq.read_table(path, **READING))
    except (pa.ArrowException, OSError, ValueError) as error:
        warnings.warn(
            f"{path}: left out, it cannot be read ({first_line(error).rstrip('.')})", stacklevel=3
        )
        return None


def _checked(path: Path, data: pa.Table) -> pa.Table:
    """Refuse what the pages' checksums do not cover: a damaged footer, or another's file."""
    types = TABLES[path.parent.name]
    if missing := [name for name in types if name in KEYS and name not in data.column_names]:
        raise ValueError(f"it has no column {missing[0]}")
    if not data.num_rows:
        raise ValueError("it has no rows")
    data.validate(full=True)
    data = data.cast(pa.schema([(f.name, types.get(f.name, f.type)) for f in data.schema]))
    if (data["step"][0].as_py(), data["step"][-1].as_py()) != _steps_of(path):
        raise ValueError("its steps are not those of its name")
    return data


def _steps_of(path: Path) -> tuple[int, int]:
    first, last = path.stem.split("-")
    return int(first), int(last)


def _step_of_alarm(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # the rest of a line that a kill has cut


def _plain(tensor: Any) -> Any:
    """Return a torch tensor as the file takes it: dense, contiguous, on the host, real."""
    tensor = tensor.detach()
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    if tensor.is_complex():
        import torch

        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.cpu().contiguous().clone()
