"""Loss and accuracy over many batches, summed on the device and read rarely."""

import torch
from torch import Tensor, nn


class Totals(nn.Module):
    """Sums of loss and of correct predictions, and the number of images.

    Adding a batch copies nothing to the host; only the ``mean_*`` methods do.
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3), persistent=False)
        self.reset()

    def reset(self) -> None:
        # Loss sums over an epoch need more than float32's 24 bits; MPS has no float64.
        wide = torch.float32 if self.sums.device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=wide, device=self.sums.device)
        self._marked = self.sums

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
        """Add a batch's mean loss, its scores (N, classes) and class indices (N,).

        Of mixed images, whose targets are (N, classes), a prediction counts for as much as the
        image has of that class.
        """
        count = len(targets)
        if targets.is_floating_point():
            correct = targets.gather(1, scores.detach().argmax(1, keepdim=True)).sum()
        elif scores.ndim == 2:
            correct = (scores.detach().argmax(1) == targets).sum()
        else:
            correct = torch.zeros((), device=targets.device)
        self.sums = self.sums + torch.stack(
            [loss.detach().to(self.sums.dtype) * count, correct.to(self.sums.dtype),
             torch.full_like(correct, count, dtype=self.sums.dtype)]
        )  # fmt: skip

    def saved(self) -> Tensor:
        """Return all there is to keep: the sums, and those at the mark; (2, 3)."""
        return torch.stack([self.sums, self._marked])

    def restore(self, saved: Tensor) -> None:
        """Go on from what :meth:`saved` returned."""
        self.sums, self._marked = saved.to(self.sums.device, self.sums.dtype)

    def since_mark(self) -> Tensor:
        """Return the sums since the last call, and mark this place."""
        gained, self._marked = self.sums - self._marked, self.sums
        return gained


def means(sums: Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy; waits for the device."""
    loss, correct, count = sums.tolist()
    return (loss / count, correct / count) if count else (float("nan"), float("nan"))
