"""A table of the record as comma-separated values, for whatever reads no Parquet."""

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from convtrain.errors import ConfigError

STDOUT = "-"


def write_csv(table: pa.Table, destination: str) -> None:
    """Write a table with a header; absent is an empty field, lists are JSON.

    Args:
        table: of a record, as :func:`convtrain.gradients.load` returns it.
        destination: a file, or ``-`` for standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    flat = pa.table({name: _flat(table[name]) for name in table.column_names})
    try:
        if destination == STDOUT:
            _write(flat, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            with Path(destination).open("wb") as file:
                _write(flat, file)
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise ConfigError(f"--csv {destination}: cannot be written ({error.strerror})") from None


def _write(table: pa.Table, file: BinaryIO) -> None:
    options: Any = pyarrow.csv.WriteOptions(quoting_style="needed")
    pyarrow.csv.write_csv(table, file, options)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type):
        texts = [None if item is None else json.dumps(item) for item in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
