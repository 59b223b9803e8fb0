"""Loss and accuracy over many batches, kept on the device and read rarely."""

import torch
from torch import Tensor

MOST = 1 << 20
"""Scores that wait to be compared with their targets: 4 MiB in float32."""


class RunningMetrics:
    """Sums of loss and of correct predictions, and the number of images.

    Adding a batch computes nothing: losses and scores wait for those that come after, because ten
    small operations take ten times as long as one that does it all. Reading is what computes, and
    what waits for the device. The sums do not depend on when they are read: they are added up on
    the host, batch by batch, in float64.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._loss = self._correct = 0.0
        self._images, self._marked = 0, torch.zeros(3, dtype=torch.float64)
        self._forget()

    def _forget(self) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[int] = []
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._found_correct: list[Tensor] = []
        self._waiting = 0

    @property
    def sums(self) -> Tensor:
        """Loss, correct predictions and images so far; (3,), float64 on the host."""
        if self._losses:
            self._compare()
            losses = torch.stack(self._losses).tolist()
            for loss, count in zip(losses, self._counts, strict=True):
                self._loss += loss * count
            for correct in self._found_correct:
                self._correct += correct.item()
            self._forget()
        return torch.tensor([self._loss, self._correct, self._images], dtype=torch.float64)

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
        """Add a batch's mean loss, its scores (N, classes) and class indices (N,).

        Of mixed images, whose targets are (N, classes), a prediction counts for as much as the
        image has of that class.
        """
        count = len(targets)
        self._losses.append(loss.detach())
        self._counts.append(count)
        self._images += count
        if scores.ndim != 2:
            return
        if targets.is_floating_point():
            with torch.no_grad():
                predicted = scores.argmax(1).unsqueeze(1)
                self._found_correct.append(targets.gather(1, predicted).sum())
            return
        self._scores.append(scores.detach())
        self._targets.append(targets)
        self._waiting += scores.numel()
        if self._waiting > MOST or (scores.is_cpu and not scores.requires_grad):
            self._compare()

    def _compare(self) -> None:
        """Count the correct predictions among the scores that wait, on their device."""
        if self._scores:
            with torch.no_grad():
                right = torch.cat(self._scores).argmax(1) == torch.cat(self._targets)
                self._found_correct.append(right.sum())
        self._scores, self._targets, self._waiting = [], [], 0

    def saved(self) -> Tensor:
        """Return all there is to keep: the sums, and those at the mark; (2, 3)."""
        return torch.stack([self.sums, self._marked])

    def restore(self, saved: Tensor) -> None:
        """Go on from what :meth:`saved` returned."""
        sums, self._marked = saved.to("cpu", torch.float64)
        self._loss, self._correct, self._images = float(sums[0]), float(sums[1]), int(sums[2])

    def since_mark(self) -> Tensor:
        """Return the sums since the last call, and mark this place."""
        sums = self.sums
        gained, self._marked = sums - self._marked, sums
        return gained


def means(sums: Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy; waits for the device."""
    loss, correct, count = sums.tolist()
    return (loss / count, correct / count) if count else (float("nan"), float("nan"))
