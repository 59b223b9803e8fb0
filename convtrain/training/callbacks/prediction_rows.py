"""The predictions of a test, one row for each image."""

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed

from convtrain.data.batches import Batch
from convtrain.training.chosen_metrics import probabilities_of

TOP = 5  # classes of an image that are kept with their probabilities
MAX_PENDING_LOGITS = 1 << 22
"""Logits that wait to be reduced to a row for each image, which waits for the device: 16 MiB."""

LISTS = {"target": "target_probability", "predicted": "probability"}
"""Columns that are lists where an image has any number of labels, and their probabilities."""
TYPES: dict[str, pa.DataType] = {
    "index": pa.int32(),  # in the split
    "target": pa.int32(),
    "predicted": pa.int32(),
    "probability": pa.float32(),
    "target_probability": pa.float32(),
    "top_classes": pa.list_(pa.int32()),
    "top_probabilities": pa.list_(pa.float32()),
}


def schema(*, multi_label: bool) -> pa.Schema:
    """Return the columns; a class is its index, and null where an image has no target."""
    several = {*LISTS, *LISTS.values()} if multi_label else set()
    return pa.schema({n: pa.list_(t) if n in several else t for n, t in TYPES.items()})


class PredictionRows(pl.Callback):
    """Collects the predicted class of each image, its probability and those of the best classes.

    After the test, ``images`` is the number of images over all devices, and ``table`` has their
    rows, sorted by ``index``; both on rank 0 only. There are no rows if the model does not return
    logits (N, classes). With several labels, those above a probability of 0.5 are predicted. A
    target of -1 is unknown, and null in the table.
    """

    def __init__(self, *, classes: int, multi_label: bool = False) -> None:
        self.classes, self.schema = classes, schema(multi_label=multi_label)
        self.multi_label = multi_label
        self._reset()

    def _reset(self) -> None:
        self.images, self.table = 0, self.schema.empty_table()
        self._parts: list[pa.Table] = []
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []  # logits, targets, indices
        self._pending_logits = 0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._add(outputs, batch)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._gather(trainer)

    on_predict_start = on_test_start
    on_predict_batch_end = on_test_batch_end
    on_predict_end = on_test_end

    def _add(self, outputs: object, batch: Batch) -> None:
        self.images += len(batch.targets)
        if isinstance(outputs, Tensor) and outputs.shape[1:] == (self.classes,):
            self._pending.append((outputs.detach(), batch.targets, batch.indices))
            self._pending_logits += outputs.numel()
            if self._pending_logits > MAX_PENDING_LOGITS:
                self._reduce()

    def _gather(self, trainer: pl.Trainer) -> None:
        self._reduce()
        found: list[tuple[int, list[pa.Table]]] = [(self.images, self._parts)]
        if trainer.world_size > 1:
            all_found = [found[0]] * trainer.world_size if trainer.is_global_zero else None
            distributed.gather_object(found[0], all_found)
            found = all_found or []
        self._reset()
        if found:
            self.images = sum(images for images, _ in found)
            parts = [part for _, theirs in found for part in theirs]
            self.table = pa.concat_tables([self.table, *parts]).sort_by("index")

    @torch.no_grad()
    def _reduce(self) -> None:
        if not self._pending:
            return
        logits, targets, indices = (torch.cat(each) for each in zip(*self._pending, strict=True))
        self._pending, self._pending_logits = [], 0
        probabilities = probabilities_of(logits, multi_label=self.multi_label)
        if self.multi_label:
            order, masks = probabilities, {"target": targets > 0.5, "predicted": logits > 0}
            columns: dict[str, pa.Array] = {}
            for name, mask in masks.items():
                columns[name] = as_lists(mask.nonzero()[:, 1], mask.sum(1))
                columns[LISTS[name]] = as_lists(probabilities[mask], mask.sum(1))
        else:
            # Equal logits are in no order, so the class that counts for the accuracy is put first.
            predicted = logits.argmax(1, keepdim=True)
            order = probabilities.nan_to_num(0).scatter(1, predicted, torch.inf)
            of_target = probabilities.gather(1, targets.clamp(min=0).unsqueeze(1))
            columns = {
                "target": _flat(targets, targets < 0),
                "predicted": _flat(predicted),
                "probability": _flat(probabilities.gather(1, predicted)),
                "target_probability": _flat(of_target, targets < 0),
            }
        best = order.topk(min(TOP, self.classes)).indices
        counts = torch.full((len(best),), best.shape[1])
        columns["top_classes"] = as_lists(best, counts)
        columns["top_probabilities"] = as_lists(probabilities.gather(1, best), counts)
        columns["index"] = _flat(indices)
        typed = [columns[field.name].cast(field.type) for field in self.schema]
        self._parts.append(pa.table(typed, schema=self.schema))


def as_lists(values: Tensor, counts: Tensor) -> pa.Array:
    """Return a list for each row, given all their values in order and how many a row has."""
    ends = counts.cumsum(0).to("cpu", torch.int32)
    return pa.ListArray.from_arrays(_flat(torch.cat([ends.new_zeros(1), ends])), _flat(values))


def _flat(values: Tensor, absent: Tensor | None = None) -> pa.Array:
    mask = None if absent is None else absent.cpu().numpy()
    return pa.array(values.flatten().cpu().numpy(), mask=mask)
