"""Writing the record beside the training.

A thread waits for the disk, and does nothing else: two threads that run Python at the same time
would wait for each other.
"""

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from convtrain.errors import TrainingError
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.steps import FlushedSteps
from convtrain.gradients.record.store import Store
from convtrain.gradients.record.tables import (
    histogram_columns,
    layer_columns,
    parameter_columns,
    step_columns,
)
from convtrain.gradients.record.tensorboard import tensorboard_view


class Writer:
    """Writes what is flushed, to the store first and then to TensorBoard, one flush at a time.

    It begins with deleting what was recorded after the step that the training starts from.

    Args:
        run_dir: the run's directory.
        trainer: may have a TensorBoard logger.
        model: whose parameters are described in ``parameters.json``.
        statistics: whether more than norms is recorded at some steps.
        overhead: counts the time of each detail.
    """

    def __init__(
        self,
        run_dir: Path,
        trainer: pl.Trainer,
        model: nn.Module,
        *,
        statistics: bool,
        overhead: Overhead,
    ) -> None:
        self._statistics, self._overhead = statistics, overhead
        self._thread = ThreadPoolExecutor(1, "gradient-record")
        self._writing: Future[None] | None = None
        before = Store(run_dir)
        before.keep_until(trainer.global_step)
        self._graph = before.last_graph()
        self._tensorboard = tensorboard_view(trainer, self._graph)
        self._store = Store(run_dir, deferred=True)
        self._store.write_text("parameters.json", _describe_parameters(model))
        self._writing = self._thread.submit(self._store.write_files)
        self._has_rows = False

    @property
    def bytes_written(self) -> int:
        """Bytes of the record on disk, 0 where no step was recorded."""
        return self._store.bytes_written if self._has_rows else 0

    def write(self, flushed: FlushedSteps, chosen: Sequence[bool]) -> None:
        """Write a flush, once the one before is written.

        Raises:
            TrainingError: the flush before could not be written.
        """
        self.wait()
        self._has_rows = True
        self._encode_tables(flushed, chosen)
        self._encode_tensors_and_graph(flushed)
        if self._tensorboard is not None:
            sampled = any(row.histograms is not None for row in flushed.rows)
            with self._overhead.of("distributions" if sampled else "norms"):
                self._tensorboard.write(flushed, chosen)
        self._writing = self._thread.submit(self._store.write_files)

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            TrainingError: it could not be written.
        """
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except TrainingError as error:
            raise TrainingError(f"{error}; recorder=off trains without a record") from error

    def close(self) -> None:
        self._thread.shutdown()

    def _encode_tables(self, flushed: FlushedSteps, chosen: Sequence[bool]) -> None:
        store = self._store
        store.append("steps", step_columns(flushed))
        with self._overhead.of("statistics" if self._statistics else "norms"):
            columns = parameter_columns(flushed, chosen, statistics=self._statistics)
            store.append("parameters", columns)
        with self._overhead.of("distributions"):
            if any(row.histograms is not None for row in flushed.rows):
                store.append("histograms", histogram_columns(flushed, chosen))
            if any(row.layers is not None for row in flushed.rows):
                store.append("layers", layer_columns(flushed))

    def _encode_tensors_and_graph(self, flushed: FlushedSteps) -> None:
        for row in flushed.rows:
            if row.tensors:
                with self._overhead.of("tensors"):
                    self._store.write_tensors(row.step, row.tensors)
            if row.layers is not None and row.layers.graph != self._graph:
                self._graph = row.layers.graph
                text = json.dumps(self._graph, indent=1) + "\n"
                self._store.write_text(f"graph-{row.step:012d}.json", text)


def _describe_parameters(model: nn.Module) -> str:
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
    return json.dumps(described, indent=1) + "\n"
