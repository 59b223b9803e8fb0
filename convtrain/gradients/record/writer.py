"""Write each flush to the store and to TensorBoard."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl

from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.steps import FlushedSteps
from convtrain.gradients.record.store import Store
from convtrain.gradients.record.tables import (
    histogram_columns,
    layer_columns,
    parameter_columns,
    step_columns,
)
from convtrain.gradients.record.tensorboard import TensorBoardView
from convtrain.training.parts import Parts, named_parameters


class Writer:
    """Writes a training's record, after it has deleted the steps that will be trained again."""

    def __init__(
        self,
        run_dir: Path,
        trainer: pl.Trainer,
        parts: Parts,
        overhead: Overhead,
        *,
        has_statistics: bool,
    ) -> None:
        self._overhead, self._has_statistics = overhead, has_statistics
        before = Store(run_dir)
        before.keep_until(trainer.global_step)
        self._graph = before.last_graph()
        self._tensorboard = TensorBoardView(trainer)
        self.store = Store(run_dir, in_thread=True)
        self._write_json("parameters.json", _describe_parameters(parts))
        self.store.start_writing()

    def write(self, flushed: FlushedSteps, chosen: Sequence[bool]) -> None:
        """Write a flush, once the one before is on the disk."""
        store, rows = self.store, flushed.rows
        store.wait()
        store.append("steps", step_columns(flushed))
        with self._overhead.of("statistics" if self._has_statistics else "norms"):
            columns = parameter_columns(flushed, chosen, statistics=self._has_statistics)
            store.append("parameters", columns)
        has_histograms = any(row.histograms is not None for row in rows)
        with self._overhead.of("distributions"):
            if has_histograms:
                store.append("histograms", histogram_columns(flushed, chosen))
            if any(row.layers is not None for row in rows):
                store.append("layers", layer_columns(flushed))
        with self._overhead.of("distributions" if has_histograms else "norms"):
            self._tensorboard.write(flushed, chosen)
        for row in rows:
            if row.layers is not None and row.layers.graph != self._graph:
                self._graph = row.layers.graph
                self._write_json(f"graph-{row.step:012d}.json", self._graph)
                self._tensorboard.write_graph(row, self._graph)
            if row.tensors:
                with self._overhead.of("tensors"):
                    store.write_tensors(row.step, row.tensors)
        store.start_writing()

    def _write_json(self, name: str, content: object) -> None:
        self.store.write_text(name, json.dumps(content, indent=1) + "\n")


def _describe_parameters(parts: Parts) -> list[dict[str, object]]:
    aliases: dict[int, list[str]] = {}
    for name, parameter in named_parameters(parts, remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    return [
        {
            "parameter": name,
            "shape": list(parameter.shape),
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "also": aliases[id(parameter)][1:],
        }
        for name, parameter in named_parameters(parts)
    ]
