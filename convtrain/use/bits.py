"""Whether two runs are the same to the last bit: weights, metrics, gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from convtrain.errors import MissingDataError
from convtrain.gradients.record.store import TABLES, load
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint

METRICS = (
    "train/loss_epoch", "train/acc_epoch", "val/loss", "val/acc", "test/loss", "test/acc", "steps",
    "epochs",
)  # fmt: skip
CLOCKS = ("time", "seconds")  # columns of a record that no two runs have in common


@dataclass(frozen=True)
class Verdict:
    """What is compared, in words, and what differs; nothing where the bits are the same."""

    compared: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return not self.differing


def compare_bits(first: Path | str, second: Path | str) -> Verdict:
    """Compare the last weights, the metrics and the gradient records of two finished runs.

    Raises:
        MissingDataError: one of them is not finished, or has no checkpoint.
        CorruptDataError: a checkpoint is damaged.
    """
    runs = Run(first), Run(second)
    compared, differing = [], []
    for what, found in (
        _weights(*runs),
        _metrics(*runs),
        *(each for table in TABLES if (each := _record(*runs, table)) is not None),
    ):
        compared.append(what)
        differing += found
    return Verdict(tuple(compared), tuple(differing))


def _weights(first: Run, second: Run) -> tuple[str, list[str]]:
    a, b = (load_checkpoint(run.last_checkpoint)["state_dict"] for run in (first, second))
    names = list(dict.fromkeys([*a, *b]))
    wrong = [
        name for name in names if name not in a or name not in b or not _equal(a[name], b[name])
    ]
    found = []
    if wrong:
        distance = max((_distance(a[n], b[n]) for n in wrong if n in a and n in b), default=0.0)
        found.append(
            f"{len(wrong)} of {len(names)} tensors of the network, by up to {distance:.2g}, "
            f"such as {wrong[0]}"
        )
    return f"{len(names)} tensors of the network", found


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Compare bits, so that NaN equals itself and 0 does not equal -0."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return first.contiguous().numpy(force=True).tobytes() == second.numpy(force=True).tobytes()


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    if first.shape != second.shape:
        return float("inf")
    return float((first.double() - second.double()).abs().max()) if first.numel() else 0.0


def _metrics(first: Run, second: Run) -> tuple[str, list[str]]:
    results = [run.finished_result() for run in (first, second)]
    keys = [key for key in METRICS if key in results[0] or key in results[1]]
    values = ((key, *(result.get(key) for result in results)) for key in keys)
    found = [f"{key}: {a!r} and {b!r}" for key, a, b in values if repr(a) != repr(b)]
    return f"{len(keys)} metrics", found


def _record(first: Run, second: Run, table: str) -> tuple[str, list[str]] | None:
    tables = []
    for run in (first, second):
        try:
            tables.append(load(run.path, table))
        except MissingDataError:
            tables.append(None)
    if tables == [None, None]:
        return None
    if tables[0] is None or tables[1] is None:
        return f"the record's {table}", [f"the record's {table}: one run has none"]
    a, b = (dict(_columns(each)) for each in tables if each is not None)
    rows = tables[0].num_rows
    wrong = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    found = [f"the record's {table}: {', '.join(wrong)}"] if wrong else []
    return f"{rows:,} rows of the record's {table}", found


def _columns(table: pa.Table) -> Iterator[tuple[str, str]]:
    for name in table.column_names:
        if not name.endswith(CLOCKS):
            yield name, repr(table[name].to_pylist())
