"""Loss and accuracy over many batches, summed on the device and read rarely."""

import torch
from torch import Tensor


class Totals:
    """Sums of loss and of correct predictions, and the number of images.

    Adding a batch copies nothing to the host, and takes few operations; reading is what waits. The
    sums are no buffers of a module: DistributedDataParallel would make them those of one device.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._images, self._marked = 0, torch.zeros(3, dtype=torch.float64)

    @property
    def sums(self) -> Tensor:
        """Loss, correct predictions and images so far; a copy, (3,)."""
        return torch.cat([self._sums, self._sums.new_full((1,), self._images)])

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
        """Add a batch's mean loss, its scores (N, classes) and class indices (N,).

        Of mixed images, whose targets are (N, classes), a prediction counts for as much as the
        image has of that class.
        """
        count = len(targets)
        with torch.no_grad():
            if loss.device != self._sums.device:
                self._sums = _on_device(self._sums, loss.device)
            self._sums[0].add_(loss, alpha=count)
            if scores.ndim == 2:
                self._sums[1].add_(_correct(scores.argmax(1), targets))
        self._images += count

    def saved(self) -> Tensor:
        """Return all there is to keep: the sums, and those at the mark; (2, 3)."""
        sums = self.sums
        return torch.stack([sums, self._marked.to(sums)])

    def restore(self, saved: Tensor) -> None:
        """Go on from what :meth:`saved` returned."""
        sums, self._marked = saved
        self._sums, self._images = sums[:2].clone(), int(sums[2])

    def since_mark(self) -> Tensor:
        """Return the sums since the last call, and mark this place."""
        sums = self.sums
        gained, self._marked = sums - self._marked.to(sums), sums
        return gained


def _correct(predicted: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return targets.gather(1, predicted.unsqueeze(1)).sum()
    return (predicted == targets).sum()


def _on_device(sums: Tensor, device: torch.device) -> Tensor:
    # Loss sums over an epoch need more than float32's 24 bits; MPS has no float64.
    return sums.to(device, torch.float32 if device.type == "mps" else torch.float64)


def means(sums: Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy; waits for the device."""
    loss, correct, count = sums.tolist()
    return (loss / count, correct / count) if count else (float("nan"), float("nan"))
