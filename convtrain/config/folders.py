"""The layout of an image folder, read from the names of its folders alone."""

from pathlib import Path

from convtrain.errors import MissingDataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")


def training_folder(root: Path) -> Path:
    """Return ``root/train`` where it exists, else ``root`` itself, which is then split."""
    return root / "train" if (root / "train").is_dir() else root


def class_names(root: Path) -> list[str]:
    """Return the sorted names of the class folders.

    Raises:
        MissingDataError: there is no such folder, or no class folder in it.
    """
    folder = training_folder(root)
    if not folder.is_dir():
        raise MissingDataError(
            f"data.root={root}: no such folder; expected {root}/train/CLASS/*.jpg and "
            f"{root}/test/CLASS/*.jpg, or {root}/CLASS/*.jpg; set data.root=FOLDER"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise MissingDataError(
            f"data.root={root}: {folder} holds no class folders; expected {folder}/CLASS/*.jpg"
        )
    return names
