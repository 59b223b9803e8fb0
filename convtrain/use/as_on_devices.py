"""A test in one process with the bits of a test on several devices.

Each device averages the loss over its part of a batch, and the sums of the devices are added up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convtrain.config.dotted import value_at
from convtrain.config.epochs import limited
from convtrain.data.batches import Batches
from convtrain.run.directory import Run
from convtrain.training.running_metrics import RunningMetrics


def devices_of(run: Run) -> int:
    """Return the number of devices, over all machines, that a run was launched on."""
    provenance, count = run.read_provenance(), 1
    for key in ("devices", "num_nodes"):
        known = value_at(provenance, f"launched.{key}", 1)
        count *= known if isinstance(known, int) and known > 0 else 1
    return count


@dataclass(eq=False)
class DividedBatches(Batches):
    """The parts of each batch, in the order of the devices that would get them."""

    devices: int = 1

    def __len__(self) -> int:
        return len(self._in_order())

    def _in_order(self) -> Sequence[Tensor]:
        whole = super()._in_order()
        used = whole[: limited(len(whole), self.limit)]
        parts = (batch[device :: self.devices] for batch in used for device in range(self.devices))
        return [part for part in parts if len(part)]

    def _images_of_step(self, position: int) -> int:
        return 1  # a test does not weigh its batches


class SumsByDevice(RunningMetrics):
    """Adds each part of a batch to the sums of its device.

    Only devices at the end of the last batch may have no image, so the devices take turns.
    """

    def __init__(self, devices: int, *, multi_label: bool = False) -> None:
        self._by_device = [RunningMetrics(multi_label=multi_label) for _ in range(devices)]
        super().__init__(multi_label=multi_label)

    def reset(self) -> None:
        self._turn = 0
        for running in self._by_device:
            running.reset()

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        self._by_device[self._turn % len(self._by_device)].add(loss, logits, targets)
        self._turn += 1

    @property
    def sums(self) -> Tensor:
        return torch.stack([running.sums for running in self._by_device]).sum(0)
