"""Export a table of the record as CSV."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from convtrain.errors import ConfigError

STDOUT = "-"


def write_csv(table: pa.Table, destination: str) -> None:
    """Write a table with a header as CSV to a file, or to standard output for ``-``.

    A null becomes an empty field, and a list becomes JSON. A failed write raises ConfigError.
    """
    flat = pa.table({name: _flat(table[name]) for name in table.column_names})
    options = pyarrow.csv.WriteOptions(quoting_style="needed")
    try:
        to_stdout = destination == STDOUT
        with nullcontext(sys.stdout.buffer) if to_stdout else Path(destination).open("wb") as file:
            pyarrow.csv.write_csv(flat, file, options)
            file.flush()
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise ConfigError(f"--csv {destination}: cannot be written ({error.strerror})") from None


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type):
        texts = [None if item is None else json.dumps(item) for item in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
