"""Loss and accuracy over many batches, kept on the device and read rarely."""

import torch
from torch import Tensor

MAX_PENDING_LOGITS = 1 << 20
"""Logits that wait to be compared with their targets: 4 MiB in float32."""


class RunningMetrics:
    """Sums of losses and of correct predictions, and the number of images.

    ``add`` only stores a batch, because ten small operations take ten times as long as a large one.
    ``sums`` computes, and waits for the device. The sums do not depend on when they are read,
    because the host adds them up batch by batch in float64.

    Args:
        multi_label: an image has any number of labels, and targets are floats (N, labels). Its
            accuracy is the part of its labels that are right, a label being present above a
            probability of 0.5: torchmetrics' ``MultilabelAccuracy``.
    """

    def __init__(self, *, multi_label: bool = False) -> None:
        self.multi_label = multi_label
        self.reset()

    def reset(self) -> None:
        self._loss = self._correct = 0.0
        self._images, self._marked = 0, torch.zeros(3, dtype=torch.float64)
        self._clear_pending()

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch's mean loss, its logits (N, classes) and its class indices (N,).

        Mixed images have targets (N, classes), where the predicted class counts with its fraction,
        and so does each label of mixed multi-label images.
        """
        count = len(targets)
        self._losses.append((loss.detach(), count))
        self._images += count
        if logits.ndim != 2:
            return
        if targets.is_floating_point():
            with torch.no_grad():
                if self.multi_label:
                    right = torch.where(logits > 0, targets, 1 - targets).mean(1)
                else:
                    right = targets.gather(1, logits.argmax(1).unsqueeze(1))
                self._correct_counts.append(right.sum())
            return
        self._logits.append(logits.detach())
        self._targets.append(targets)
        self._pending += logits.numel()
        if self._pending > MAX_PENDING_LOGITS or (logits.is_cpu and not logits.requires_grad):
            self._count_correct()

    @property
    def sums(self) -> Tensor:
        """Loss, correct predictions and images so far; (3,), float64 on the host."""
        if self._losses:
            self._count_correct()
            losses = torch.stack([loss for loss, _ in self._losses]).tolist()
            for loss, (_, count) in zip(losses, self._losses, strict=True):
                self._loss += loss * count
            for correct in self._correct_counts:
                self._correct += correct.item()
            self._clear_pending()
        return torch.tensor([self._loss, self._correct, self._images], dtype=torch.float64)

    def since_mark(self) -> Tensor:
        """Return the sums since the last call, and set the mark here."""
        sums = self.sums
        gained, self._marked = sums - self._marked, sums
        return gained

    def saved(self) -> Tensor:
        """Return the sums so far and the sums at the mark, (2, 3), for :meth:`restore`."""
        return torch.stack([self.sums, self._marked])

    def restore(self, saved: Tensor) -> None:
        sums, self._marked = saved.to("cpu", torch.float64)
        self._loss, self._correct, self._images = float(sums[0]), float(sums[1]), int(sums[2])

    def _clear_pending(self) -> None:
        self._losses: list[tuple[Tensor, int]] = []
        self._correct_counts: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._pending = 0

    def _count_correct(self) -> None:
        if self._logits:
            with torch.no_grad():
                correct = torch.cat(self._logits).argmax(1) == torch.cat(self._targets)
                self._correct_counts.append(correct.sum())
        self._logits, self._targets, self._pending = [], [], 0


def means(sums: Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy; waits for the device."""
    loss, correct, count = sums.tolist()
    return (loss / count, correct / count) if count else (float("nan"), float("nan"))
