"""Writing the record beside the training.

A thread waits for the disk, and does nothing else: two threads that run Python at once would wait
for each other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from convtrain.errors import TrainingError
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.rows import (
    Flushed,
    histogram_columns,
    layer_columns,
    parameter_columns,
    step_columns,
)
from convtrain.gradients.record.store import Store
from convtrain.gradients.record.tensorboard import Mirror


class Writer:
    """Writes what is flushed, to the store first and then to TensorBoard, one flush at a time.

    Args:
        run_dir: the run's directory.
        mirror: the view in TensorBoard, if there is one.
        statistics: whether more than norms is recorded at some steps.
        overhead: is told which detail takes the time.
    """

    def __init__(
        self, run_dir: Path, mirror: Mirror | None, *, statistics: bool, overhead: Overhead
    ) -> None:
        self._run_dir, self._mirror, self._statistics = run_dir, mirror, statistics
        self._overhead = overhead
        self._thread = ThreadPoolExecutor(1, "gradient-record")
        self._encoded: list[Callable[[], None]] = []
        self._writing: list[Future[None]] = []
        self.store = Store(run_dir, self._submit)
        self.recorded = False
        self._graph: Mapping[str, list[str]] = {}

    def begin(self, step: int, model: nn.Module) -> None:
        """Forget what was recorded after ``step``, and write down what the parameters are."""
        at_once = Store(self._run_dir)
        at_once.keep_until(step)
        self._graph = at_once.last_graph()
        if self._mirror is not None:
            self._mirror.graph = self._graph
        aliases: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            aliases.setdefault(id(parameter), []).append(name)
        described = [
            {
                "parameter": name,
                "shape": list(parameter.shape),
                "dtype": str(parameter.dtype).removeprefix("torch."),
                "also": aliases[id(parameter)][1:],
            }
            for name, parameter in model.named_parameters()
        ]
        self.store.write_text("parameters.json", json.dumps(described, indent=1) + "\n")
        self._start_writing()

    def write(self, flushed: Flushed, chosen: Sequence[bool]) -> None:
        """Write a flush, when the one before is written.

        Raises:
            TrainingError: the flush before could not be written.
        """
        self.wait()
        self.recorded = True
        self._write_tables(flushed, chosen)
        self._write_samples(flushed)
        if self._mirror is not None:
            sampled = any(row.histograms is not None for row in flushed.rows)
            with self._overhead.of("distributions" if sampled else "norms"):
                self._mirror.write(flushed, chosen)
        self._start_writing()

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            TrainingError: it could not be written.
        """
        writing, self._writing = self._writing, []
        try:
            for file in writing:
                file.result()
        except TrainingError as error:
            raise TrainingError(f"{error}; recorder=off trains without a record") from error

    def close(self) -> None:
        self._thread.shutdown()

    def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
        self._encoded.append(partial(function, *arguments))

    def _start_writing(self) -> None:
        encoded, self._encoded = self._encoded, []
        self._writing += [self._thread.submit(write) for write in encoded]

    def _write_tables(self, flushed: Flushed, chosen: Sequence[bool]) -> None:
        self.store.append("steps", step_columns(flushed))
        with self._overhead.of("statistics" if self._statistics else "norms"):
            columns = parameter_columns(flushed, chosen, statistics=self._statistics)
            self.store.append("parameters", columns)
        with self._overhead.of("distributions"):
            if any(row.histograms is not None for row in flushed.rows):
                self.store.append("histograms", histogram_columns(flushed, chosen))
            if any(row.layers is not None for row in flushed.rows):
                self.store.append("layers", layer_columns(flushed))

    def _write_samples(self, flushed: Flushed) -> None:
        for row in flushed.rows:
            if row.tensors:
                with self._overhead.of("tensors"):
                    self.store.write_tensors(row.step, row.tensors)
            if row.layers is not None and row.layers.graph != self._graph:
                self._graph = row.layers.graph
                text = json.dumps(self._graph, indent=1) + "\n"
                self.store.write_text(f"graph-{row.step:012d}.json", text)
