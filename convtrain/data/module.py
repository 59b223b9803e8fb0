"""The LightningDataModule of a run."""

from functools import partial

import pytorch_lightning as pl
import torch

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError


class ImageData(pl.LightningDataModule):
    """The splits, moved to the training device once.

    Args:
        batch_size, eval_batch_size: over all devices together.
        split_seed: chooses the images of ``limit`` and ``overfit_batches``.
        classes: required by mixup and cutmix.
        balanced: an epoch draws each class equally often.
        limit: use N images of each split, in the proportions of the classes.
        overfit_batches: train and validate on the same N batches of training images.
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
        balanced: bool = False,
        drop_last: bool = False,
        limit: int | None = None,
        overfit_batches: int | None = None,
    ) -> None:
        super().__init__()
        # Splits that share one Images object keep sharing it, so it is moved once.
        sampled = {id(images): images.sample(limit, split_seed) for images in splits.images}
        train, val, test = (sampled[id(images)] for images in splits.images)
        if overfit_batches is not None:
            train = val = train.sample(overfit_batches * batch_size, split_seed)
        if batch_size > len(train):
            raise ConfigError(
                f"data.batch_size={batch_size}: larger than the training data of {len(train)} "
                f"images; set data.batch_size={len(train)} or less"
            )
        self.splits = Splits(train, val, test, splits.tested, splits.classes)
        self.normalise = normalise
        self._transforms = augmentation.transforms is not None
        self._made: list[Batches] = []
        self._make_train = partial(
            Batches,
            batch_size=batch_size,
            normalise=normalise,
            augmentation=augmentation,
            classes=classes,
            shuffle=True,
            balanced=balanced,
            seed=seed,
            drop_last=drop_last,
        )
        self._make_eval = partial(
            Batches,
            batch_size=eval_batch_size,
            normalise=normalise,
            augmentation=Augmentation(workers=augmentation.workers),
        )

    @property
    def is_multi_label(self) -> bool:
        """Whether an image has any number of labels: floats (N, labels), of which 1 is present."""
        return self.splits.train.labels.is_floating_point()

    def train_dataloader(self) -> Batches:
        # Transforms run on the CPU; all else is done where the model is.
        return self._on_device(self._make_train, self.splits.train, pixels_too=not self._transforms)

    def val_dataloader(self) -> Batches:
        return self._on_device(self._make_eval, self.splits.val)

    def test_dataloader(self) -> Batches:
        return self._on_device(self._make_eval, self.splits.test)

    def transfer_batch_to_device(
        self, batch: object, device: torch.device, dataloader_idx: int
    ) -> object:
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch  # Lightning would call .to() on each of its tensors
        moved: object = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def close(self) -> None:
        """End the processes that make images, if there are any."""
        for batches in self._made:
            batches.close()

    def _on_device(
        self, make: "partial[Batches]", images: Images, *, pixels_too: bool = True
    ) -> Batches:
        if (trainer := self.trainer) is None:
            return make(images)
        batches = make(images.to(trainer.strategy.root_device, pixels_too=pixels_too))
        self._made.append(batches)
        batches.rank, batches.world_size = trainer.global_rank, trainer.world_size
        if batches.shuffle:
            batches.accumulate = trainer.accumulate_grad_batches
            batches.limit = trainer.limit_train_batches
        return batches
