"""What two runs differ in, read from their files without the help of the code under test."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

METRICS = (
    "train/loss_epoch", "train/acc_epoch", "val/loss", "val/acc", "test/loss", "test/acc", "steps",
    "epochs", "parameters", "tested_checkpoint",
)  # fmt: skip
CLOCKS = ("time", "seconds", "images_per_second")
"""How the names of columns end that no two runs have in common."""
STATE = ("state_dict", "optimizer_states", "lr_schedulers")
TABLES = ("steps", "parameters", "layers", "histograms")


def differences(first: Path, second: Path) -> list[str]:
    """Return a line for each kind of thing that differs in a bit; none where all are equal.

    Compared are the last checkpoint's weights, optimiser and schedule, the metrics of the result,
    ``metrics.csv``, and the gradient record: its rows without the names of their columns, and its
    whole tensors.
    """
    parts: dict[str, Callable[[Path], Any]] = {
        "checkpoint": _checkpoint,
        "result.json": _result,
        "metrics.csv": _curves,
        **{f"gradients/{table}": partial(_table, table=table) for table in TABLES},
        "gradients/tensors": _gradients,
    }
    found = []
    for part, read in parts.items():
        a, b = dict(read(first)), dict(read(second))
        keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
        if keys:
            found.append(f"{part}: {len(keys)} of {len({*a, *b})} differ, such as {keys[0]}")
    return found


def amount(run: Path) -> str:
    """Return how much of a run is compared, in words."""
    tensors = sum(isinstance(value, tuple) for _, value in _checkpoint(run))
    rows = sum(sum(_table(run, table).values()) for table in TABLES)
    return f"{tensors} tensors, {len(dict(_curves(run)))} log rows, {rows} record rows"


def _checkpoint(run: Path) -> Iterator[tuple[str, Any]]:
    saved = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    for part in STATE:
        yield from _leaves(saved[part], part)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield name, _bits(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{name}.{index}")
    else:
        yield name, repr(value)  # in which NaN equals NaN and 0.0 is not -0.0


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return str(tensor.dtype), tuple(tensor.shape), bytes(plain.tolist())


def _result(run: Path) -> Iterator[tuple[str, str]]:
    result = json.loads((run / "result.json").read_text())
    for key in METRICS:
        yield key, repr(result.get(key))


def _curves(run: Path) -> Iterator[tuple[str, Any]]:
    with (run / "metrics.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            yield f"row {number}", {k: v for k, v in row.items() if not k.endswith(CLOCKS)}


def _table(run: Path, table: str) -> Counter[str]:
    """Return how often each row occurs; a column may have another name in another version."""
    parts = sorted((run / "gradients" / table).glob("*.parquet"))
    rows = (row for part in parts for row in pq.read_table(part, partitioning=None).to_pylist())
    return Counter(
        ", ".join(
            sorted(repr(v) for k, v in row.items() if not k.endswith(CLOCKS) and v is not None)
        )
        for row in rows
    )


def _gradients(run: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted((run / "gradients" / "tensors").glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            yield f"{name} of step {file.stem}", _bits(tensor)
