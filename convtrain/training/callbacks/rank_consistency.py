"""Check before the first step that all processes train the same."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import distributed

import convtrain
from convtrain.config.identity import digest, identity
from convtrain.config.schema import Config
from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError

MAX_HASHED_BYTES = 64 * 2**20  # per split; a larger one is sampled evenly

Facts = Mapping[str, str]


class SameEverywhere(pl.Callback):
    """Raises ConfigError in all processes if configuration, code, data or directory differ.

    ``weights`` is a hash of those that the training begins with.
    """

    def __init__(self, config: Config, data: str, run_dir: Path, weights: object = None) -> None:
        self.config, self.data, self.run_dir, self.weights = config, data, run_dir, weights

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        facts = {
            "configuration": digest(self.config),
            "code": code_version(),
            "data": self.data,
            "weights": str(self.weights),
            "run directory": str(self.run_dir.absolute()),
        }
        gathered: list[tuple[Facts, Facts]] = [({}, {})] * trainer.world_size
        distributed.all_gather_object(gathered, (facts, identity(self.config)))
        if (line := difference(*zip(*gathered, strict=True))) is not None:
            raise ConfigError(line)


def difference(facts: Sequence[Facts], settings: Sequence[Facts]) -> str | None:
    """Describe the first rank that differs from rank 0, given each rank's facts and settings."""
    for rank, theirs in enumerate(facts):
        wrong = [name for name, fact in theirs.items() if fact != facts[0][name]]
        if not wrong:
            continue
        mine, other = settings[0], settings[rank]
        keys = [key for key in {**mine, **other} if mine.get(key) != other.get(key)]
        if wrong[0] == "configuration" and keys:
            detail = ", ".join(f"{k} is {other.get(k)}, not {mine.get(k)}" for k in keys[:3])
        else:
            detail = f"{theirs[wrong[0]]}, not {facts[0][wrong[0]]}"
        return (
            f"rank {rank} has another {' and another '.join(wrong)} than rank 0: {detail}; "
            f"start the same command on the same code and data everywhere"
        )
    return None


def code_version() -> str:
    """Return convtrain's version, a short hash of its files, and torch's version."""
    folder, code = Path(convtrain.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        code.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{convtrain.__version__}-{code.hexdigest()[:12]} with torch {torch.__version__}"


OTHER_DATA = "the images, their classes or their splits are not those that {} was trained on"
"""What is said of data with another fingerprint than that of a run."""


def data_fingerprint(splits: Splits) -> str:
    """Return a short hash of all labels and images; large splits are sampled."""
    data = hashlib.sha256()
    for images in (splits.train, splits.val, splits.test):
        data.update(str(len(images)).encode())
        data.update(images.labels.cpu().numpy().tobytes())
        for pixels in _pixels_to_hash(images):
            data.update(pixels.cpu().contiguous().numpy().data)
    return data.hexdigest()[:12]


def _pixels_to_hash(images: Images) -> Iterator[torch.Tensor]:
    if not len(images):
        return
    one = images.read(torch.tensor([0], device=images.indexed_on))
    count = max(MAX_HASHED_BYTES // max(one.numel(), 1), 1)
    step = -(-len(images) // count)
    for indices in torch.arange(0, len(images), step, device=images.indexed_on).split(1024):
        yield images.read(indices)
