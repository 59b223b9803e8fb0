"""What a record says of a whole run, added up piece by piece in bounded memory.

Counts are exact. Medians of long runs are those of a :class:`convtrain.gradients.reading.Sample`.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa

from convtrain.gradients.diagnosis.online import Block, Detector
from convtrain.gradients.diagnosis.rules import Alarm
from convtrain.gradients.layers import layer_of
from convtrain.gradients.reading import Sample, gather_norms, skipped_steps
from convtrain.gradients.record.store import TABLES

ROUNDING = 1e-4  # of float32: a coefficient of 0.9999999 clips nothing


class StepAggregate:
    """The table of steps.

    Attributes:
        count, first, last: number, first and last of the recorded steps.
        skipped: bool (count,), whether the loss scaler skipped the step.
        skipped_steps: int64, the numbers of these steps.
        norms: a sample of the finite norms.
        largest: the largest of them, and its step.
        clipped, clippable: how many steps were clipped, out of those that could have been.
        kept: a sample of the clipped steps' norm after clipping / norm before.
        detector: has looked at all steps.
        alarms: its first alarm of each kind.
    """

    def __init__(self) -> None:
        self.count = self.first = self.last = self.clipped = self.clippable = 0
        self.skipped, self.skipped_steps = np.zeros(0, bool), np.zeros(0, np.int64)
        self.norms, self.kept, self.largest = Sample(), Sample(), (-np.inf, 0)
        self.detector, self.alarms = Detector(), dict[str, Alarm]()

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        steps = _columns(table)
        step, norm = steps["step"], steps["norm"]
        self.first, self.last = self.first if self.count else int(step[0]), int(step[-1])
        self.count += len(step)
        self.skipped = np.append(self.skipped, steps["skipped"])
        self.skipped_steps = np.append(self.skipped_steps, skipped_steps(table))
        usable = ~steps["skipped"] & (steps["nonfinite"] == 0)
        finite = usable & np.isfinite(norm)
        self.norms.add(norm[finite])
        if finite.any():
            row = int(np.argmax(np.where(finite, norm, -np.inf)))
            self.largest = max(self.largest, (float(norm[row]), int(step[row])))
        kept = steps["kept"][usable]
        self.clippable += len(kept)
        self.clipped += len(clipped := kept[kept < 1 - ROUNDING])
        self.kept.add(clipped)
        nothing = np.zeros((len(step), 0))
        for alarm in self.detector.look(Block((), steps, nothing, nothing > 0)):
            self.alarms.setdefault(alarm.kind, alarm)

    def skipped_of_later_half(self) -> float:
        return float(self.skipped[self.count // 2 :].mean())


class ParameterAggregate:
    """The table of parameters: samples of norms and update ratios, by name."""

    def __init__(self) -> None:
        self._parameters: dict[str, Sample] = defaultdict(Sample)
        self._layers: dict[str, Sample] = defaultdict(Sample)
        self._update_ratios: dict[str, Sample] = defaultdict(Sample)
        self._fullest, self._order = 0, list[str]()

    def add(self, table: pa.Table, skipped: np.ndarray) -> None:
        if "norm" not in table.column_names or not table.num_rows:
            return
        norms = gather_norms(table, skipped)
        if (present := int(norms.present.sum(1).max())) > self._fullest:
            self._fullest, self._order = present, [*norms.names]
        parts = [(self._parameters, norms), (self._layers, norms.by_layer())]
        if "update_ratio" in table.column_names:
            ratios = gather_norms(table, column="update_ratio")
            every_step = np.ones_like(ratios.counted)
            parts.append((self._update_ratios, replace(ratios, counted=every_step)))
        for samples, part in parts:
            for name, values in zip(part.names, part.counted_values(), strict=True):
                samples[name].add(values)

    @property
    def medians(self) -> dict[str, float]:
        """The median gradient norm of each parameter, in the order of the network."""
        names = dict.fromkeys([*self._order, *self._parameters])
        return {name: self._parameters[name].median() for name in names}

    @property
    def layer_medians(self) -> dict[str, float]:
        """The median gradient norm of each layer, in the order of the network."""
        return {layer: self._layers[layer].median() for layer in map(layer_of, self.medians)}

    @property
    def update_ratio(self) -> float:
        """The median over the medians of the living weights; NaN where it was not recorded.

        Biases start at zero: a change that is large for them is none to the network.
        """
        ratios = [
            self._update_ratios[name].median()
            for name, norm in self.medians.items()
            if norm > 0 and not name.endswith("bias")
        ]
        known = [ratio for ratio in ratios if np.isfinite(ratio)]
        return float(np.median(known)) if known else np.nan


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns that a :class:`Block` needs, and ``kept``; any but ``step`` may lack."""
    nothing = pa.chunked_array([pa.nulls(table.num_rows)])
    columns = dict.fromkeys(TABLES["steps"], nothing)
    columns |= {name: table[name] for name in table.column_names}

    def numbers(name: str) -> np.ndarray:
        return np.asarray(columns[name].cast(pa.float64()).to_numpy())

    norm, nonfinite = numbers("norm"), numbers("nonfinite")
    if "nonfinite" not in table.column_names and "norm" in table.column_names:
        nonfinite = ~np.isfinite(norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = numbers("clipped_norm") / norm
    return {
        "step": numbers("step").astype(np.int64),
        "norm": norm,
        "skipped": numbers("skipped") > 0,
        "nonfinite": np.nan_to_num(nonfinite).astype(np.int64),
        "first_nonfinite": np.array(columns["first_nonfinite"].to_pylist(), object),
        "loss": numbers("loss"),
        "loss_known": ~np.asarray(columns["loss"].is_null()),
        "kept": np.where(np.isfinite(kept), kept, numbers("clip_coefficient")),
    }
