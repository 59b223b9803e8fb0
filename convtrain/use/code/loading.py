"""Write how the training images are loaded: augmentation, order and batches."""

from convtrain.config.schema import Config
from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import exploded, fit
from convtrain.use.code.parts import Loop, Part, comment

MIXING = ("cutout", "mixup", "cutmix", "transforms")  # of ``augment``: not written

AUGMENTED = '''

class Augmented(Dataset):
    """Images that a transform changes at random, anew each time."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.labels[index]'''


def training_images(loop: Loop) -> Part:
    """Write the dataset, whose images are a placeholder, and its loader."""
    data, augment = loop.config.data, loop.config.augment
    left_out = [f"augment.{key}" for key in MIXING if getattr(augment, key)]
    if augment.flip_alternates and augment.horizontal_flip:
        left_out.append("augment.flip_alternates")
    count = data.class_count
    labels = f"    labels = torch.randint({count}, (1024,))"
    if loop.is_multi_label:
        labels = f"    labels = torch.randint(2, (1024, {count})).float()"
    order, sampler = "shuffle=True", []
    if data.sampling == "balanced":
        order = "sampler=sampler"
        sampler = [
            *comment(
                "By chance, each class is drawn equally often; in convtrain it is exactly so."
            ),
            "    frequency = torch.bincount(labels)[labels]",
            "    sampler = WeightedRandomSampler(1 / frequency, len(labels))",
        ]
    drop = ", drop_last=True" if data.drop_last else ""
    loader = f"loader = DataLoader(dataset, batch_size={data.batch_size}, {order}{drop})"
    end = [*sampler, *fit(loader, 4)]
    if transforms := _transforms(loop.config):
        lines = [
            "    # Put your images here, uint8 (channels, height, width).",
            *fit(f"images = [{_placeholder(loop.config)} for _ in range(1024)]", 4),
            labels,
            "    # convtrain draws other random numbers, which follow from (seed, epoch, image).",
            "    transform = v2.Compose(",
            *exploded("[", transforms, "]", 8),
            "    )",
            "    dataset = Augmented(images, labels, transform)",
        ]
        return Part(defined=AUGMENTED.splitlines(), data=[*lines, *end], left_out=left_out)
    shape = ", ".join(map(str, data.shape))
    lines = [
        *comment(f"Put your images here, normalised by {_normalisation(data.mean, data.std)}."),
        f"    images = torch.randn(1024, {shape})",
        labels,
        "    dataset = TensorDataset(images, labels)",
    ]
    return Part(data=[*lines, *end], left_out=left_out)


def _transforms(config: Config) -> list[str]:
    """Return the augmentation, and what follows it, as classes of ``torchvision.transforms.v2``."""
    data, augment = config.data, config.augment
    size, found = literal(tuple(data.shape[1:])), []
    if data.stored_side is not None and augment.crop_scale is not None:
        given = f"scale={literal(augment.crop_scale)}, ratio={literal(augment.crop_ratio)}"
        if (filter_ := getattr(data, "interpolation", "bilinear")) != "bilinear":
            given += f", interpolation=v2.InterpolationMode.{filter_.upper()}"
        found.append(f"v2.RandomResizedCrop({size}, {given})")
    elif data.stored_side is not None:
        return []  # the declared transforms make images of one size
    if augment.random_crop:
        reflects = ', padding_mode="reflect"' * (augment.padding_mode == "reflect")
        found.append(f"v2.RandomCrop({size}, padding={augment.random_crop}{reflects})")
    if augment.horizontal_flip:
        found.append(f"v2.RandomHorizontalFlip({literal(augment.horizontal_flip)})")
    normalise = f"v2.Normalize({literal(data.mean)}, {literal(data.std)})"
    return [*found, "v2.ToDtype(torch.float32, scale=True)", normalise] if found else []


def _placeholder(config: Config) -> str:
    """Return random pixels of the size of an image, before any crop."""
    channels, *size = config.data.shape
    if (side := config.data.stored_side) is not None:
        size = [side, side * 4 // 3]
    return f"torch.randint(256, {literal((channels, *size))}, dtype=torch.uint8)"


def _normalisation(mean: list[float], std: list[float]) -> str:
    if len(mean) == 1:
        return f"(pixels / 255 - {mean[0]}) / {std[0]}"
    return f"(pixels / 255 - mean) / std, with {literal(mean)} and {literal(std)}"
