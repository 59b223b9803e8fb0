"""Compare runs key by key: configuration, versions, metrics and gradient norms."""

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


class Row(NamedTuple):
    """A key and its value in each run; None where a run has none."""

    key: str
    values: tuple[object, ...]

    @property
    def is_equal(self) -> bool:
        return all(value == self.values[0] for value in self.values)


def config_rows(*runs: Run) -> Iterator[Row]:
    """Yield the keys by which the runs are different trainings."""
    configs = [run.read_config() for run in runs]
    keys = dict.fromkeys(key for config in configs[1:] for key in runs[0].differing(config))
    flat = [dict(leaves(config)) for config in configs]
    yield from (Row(key, tuple(each.get(key) for each in flat)) for key in keys)


def provenance_rows(*runs: Run) -> Iterator[Row]:
    """Yield versions, machine and devices, as far as all runs have recorded them."""
    recorded = [dict(leaves(run.read_provenance())) for run in runs]
    known = all("project.folder" in each for each in recorded)  # older runs lack most of it
    for row in _rows(*recorded):
        is_new = row.key.startswith(("packages.", "project."))
        is_known = known or not is_new or None not in row.values
        if is_known and row.key not in ("command", "seed", "project.folder"):
            yield row


def metric_rows(*results: Mapping[str, object]) -> Iterator[Row]:
    """Yield the metrics and counts that are single numbers."""
    for key in (*metric_names(*results), *COUNTS):
        values = tuple(result.get(key) for result in results)
        is_single = not any(isinstance(value, list) for value in values)
        if is_single and any(key in result for result in results):
            yield Row(key, values)


def norm_rows(*runs: Run) -> Iterator[Row]:
    """Yield each layer's median gradient norm; runs without a record have none."""
    medians: list[Mapping[str, object]] = []
    for run in runs:
        medians.append({})
        with suppress(MissingDataError):
            medians[-1] = read_norms(run.path).by_layer().medians()
    yield from _rows(*medians)


def _rows(*each: Mapping[str, object]) -> Iterator[Row]:
    for key in dict.fromkeys(key for values in each for key in values):
        yield Row(key, tuple(values.get(key) for values in each))
