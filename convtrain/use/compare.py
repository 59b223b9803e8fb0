"""Compare two runs key by key: configuration, versions, metrics and gradient norms."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from convtrain.config.dotted import leaves
from convtrain.errors import MissingDataError
from convtrain.gradients.reading import read_norms
from convtrain.run.directory import Run
from convtrain.run.result import metric_names

COUNTS = ("steps", "epochs", "parameters", "wall_time_seconds", "images_per_second")
"""Keys of a result that are compared beside its metrics."""


class Pair(NamedTuple):
    """A key and its value in each of two runs; None where a run has none."""

    key: str
    first: object
    second: object

    @property
    def is_equal(self) -> bool:
        return self.first == self.second


def config_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield the keys by which two runs are different trainings."""
    a, b = (dict(leaves(run.read_config())) for run in (first, second))
    yield from (Pair(key, a.get(key), b.get(key)) for key in first.differing(second.read_config()))


def provenance_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield versions, machine and devices, as far as both runs have recorded them."""
    a, b = (dict(leaves(run.read_provenance())) for run in (first, second))
    known = all("project.folder" in recorded for recorded in (a, b))  # older runs lack most of it
    for pair in _pairs(a, b):
        is_new = pair.key.startswith(("packages.", "project."))
        is_known = known or not is_new or None not in (pair.first, pair.second)
        if is_known and pair.key not in ("command", "seed", "project.folder"):
            yield pair


def metric_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield metrics and counts."""
    a, b = (dict(run.read_result() or {}) for run in (first, second))
    keys = [key for key in (*metric_names(a, b), *COUNTS) if key in a or key in b]
    yield from (Pair(key, a.get(key), b.get(key)) for key in keys)


def norm_pairs(first: Run, second: Run) -> Iterator[Pair]:
    """Yield each layer's median gradient norm; nothing if a run has no record."""
    with suppress(MissingDataError):
        medians = [read_norms(run.path).by_layer().medians() for run in (first, second)]
        yield from _pairs(*medians)


def _pairs(first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[Pair]:
    for key in dict.fromkeys([*first, *second]):
        yield Pair(key, first.get(key), second.get(key))
