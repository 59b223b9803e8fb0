"""How far a training has come, for error lines and checkpoints."""

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a training has come."""

    at: tuple[int, int, int] | None = None  # current or last step (from 1), epoch, batch (from 0)
    doing: str = ""  # prefix for error lines, such as "after "; empty while the batch trains
    batch: int = 0  # number of batches of this epoch that have begun
    epochs: int = 0  # number of epochs that have ended, including a last one that ended early
    validated: tuple[int, int] | None = None  # epoch and batch of the last validation

    def where(self) -> str:
        """Return the place for an error line, such as ``after step 3, epoch 0, batch 2``."""
        if self.at is None:
            return f"{self.doing}the start" if self.doing else "before the first step"
        step, epoch, batch = self.at
        return f"{self.doing}step {step}, epoch {epoch}, batch {batch}"
