"""The data of a run, as Lightning asks for it."""

from functools import partial

import pytorch_lightning as pl
import torch

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError


class ImageData(pl.LightningDataModule):
    """The splits, moved once to the device that trains.

    Args:
        splits: the images.
        batch_size, eval_batch_size: over all devices together.
        seed: of the order and of the augmentation.
        split_seed: of the images that ``limit`` and ``overfit_batches`` choose.
        classes: their number, which mixup needs.
        limit: use only N images of each split, the classes in proportion.
        overfit_batches: train and validate on as many training images as N batches have.

    Raises:
        ConfigError: a batch is larger than the training data.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        normalise: Normalisation,
        augmentation: Augmentation,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        split_seed: int = 0,
        classes: int | None = None,
        drop_last: bool = False,
        limit: int | None = None,
        overfit_batches: int | None = None,
    ) -> None:
        super().__init__()
        # Splits of the same images stay one object, which is held and moved once.
        sampled = {id(images): images.sample(limit, split_seed) for images in splits.images}
        train, val, test = (sampled[id(images)] for images in splits.images)
        if overfit_batches is not None:
            train = val = train.sample(overfit_batches * batch_size, split_seed)
        if batch_size > len(train):
            raise ConfigError(
                f"data.batch_size={batch_size}: larger than the training data of {len(train)} "
                f"images; set data.batch_size={len(train)} or less"
            )
        self.splits = Splits(train, val, test, splits.tested)
        self.normalise = normalise
        self._make_train = partial(
            Batches,
            batch_size=batch_size,
            normalise=normalise,
            augmentation=augmentation,
            classes=classes,
            shuffle=True,
            seed=seed,
            drop_last=drop_last,
        )
        self._make_eval = partial(Batches, batch_size=eval_batch_size, normalise=normalise)

    def train_dataloader(self) -> Batches:
        return self._on_device(self._make_train, self.splits.train)

    def val_dataloader(self) -> Batches:
        return self._on_device(self._make_eval, self.splits.val)

    def test_dataloader(self) -> Batches:
        return self._on_device(self._make_eval, self.splits.test)

    def transfer_batch_to_device(
        self, batch: object, device: torch.device, dataloader_idx: int
    ) -> object:
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch  # resident; Lightning would call .to() on each tensor of it
        moved: object = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def _on_device(self, make: "partial[Batches]", images: Images) -> Batches:
        if (trainer := self.trainer) is None:
            return make(images)
        batches = make(images.to(trainer.strategy.root_device))
        batches.rank, batches.world_size = trainer.global_rank, trainer.world_size
        if batches.shuffle:
            batches.accumulate = trainer.accumulate_grad_batches
            batches.limit = trainer.limit_train_batches
        return batches
