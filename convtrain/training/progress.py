"""How far a training has come, for error lines and checkpoints."""

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        at: current or last step (from 1), epoch and batch (from 0).
        doing: prefix for error lines, such as ``after``; empty while the task trains on the batch.
        batch: number of batches of this epoch that have begun.
        epochs: number of epochs that have ended, including a last one that ended early.
        validated: epoch and batch of the last validation.
    """

    at: tuple[int, int, int] | None = None
    doing: str = ""
    batch: int = 0
    epochs: int = 0
    validated: tuple[int, int] | None = None

    def where(self) -> str:
        """Return the place for an error line, such as ``after step 3, epoch 0, batch 2``."""
        if self.at is None:
            return f"{self.doing}the start" if self.doing else "before the first step"
        step, epoch, batch = self.at
        return f"{self.doing}step {step}, epoch {epoch}, batch {batch}"
