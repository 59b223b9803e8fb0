"""Where in a training the task is, for the one line that an error shows and for checkpoints."""

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        at: step (from 1), epoch and batch (from 0) that the task trains on or trained on last.
        doing: what happens with that batch; empty while the task trains on it.
        batch: batches of this epoch that have begun.
        epochs: epochs that have ended, a last one that ended early included.
        validated: epoch and batch of the last validation.
    """

    at: tuple[int, int, int] | None = None
    doing: str = ""
    batch: int = 0
    epochs: int = 0
    validated: tuple[int, int] | None = None

    def where(self) -> str:
        """Name the batch; steps count from 1, as in metrics.csv, epochs and batches from 0."""
        if self.at is None:
            return f"{self.doing}the start" if self.doing else "before the first step"
        step, epoch, batch = self.at
        return f"{self.doing}step {step}, epoch {epoch}, batch {batch}"
