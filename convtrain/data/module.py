"""The data of a run, as Lightning asks for it."""

import pytorch_lightning as pl
import torch

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError


class ImageData(pl.LightningDataModule):
    """Resident splits, moved once to the device that trains.

    Args:
        splits: uint8 images.
        batch_size, eval_batch_size: over all devices together.
        seed: of the order and of the augmentation.
        classes: their number, which mixup needs.
        split_seed: of the images that ``limit`` and ``overfit_batches`` choose.
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
        self.normalise, self.augmentation = normalise, augmentation
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.drop_last, self.classes = seed, drop_last, classes

    def train_dataloader(self) -> Batches:
        return self._batches(
            self.splits.train,
            batch_size=self.batch_size,
            augmentation=self.augmentation,
            classes=self.classes,
            shuffle=True,
            seed=self.seed,
            drop_last=self.drop_last,
            accumulate=self.trainer.accumulate_grad_batches if self.trainer else 1,
            limit=self.trainer.limit_train_batches if self.trainer else 1.0,
        )

    def val_dataloader(self) -> Batches:
        return self._batches(self.splits.val, batch_size=self.eval_batch_size)

    def test_dataloader(self) -> Batches:
        return self._batches(self.splits.test, batch_size=self.eval_batch_size)

    def transfer_batch_to_device(
        self, batch: object, device: torch.device, dataloader_idx: int
    ) -> object:
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch  # resident; Lightning would call .to() on each tensor of it
        moved: object = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def _batches(self, images: Images, **options: object) -> Batches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return Batches(
            images.to(device),
            normalise=self.normalise,
            rank=rank,
            world_size=world_size,
            **options,  # type: ignore[arg-type]
        )
