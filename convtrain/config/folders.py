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
        MissingDataError: there is no such folder, no class folder in it, or one that is a link to
            somewhere else.
    """
    try:
        folder = training_folder(root)
        names = sorted(e.name for e in folder.iterdir() if e.is_dir()) if folder.is_dir() else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingDataError(f"data.root={str(root)[:200]}: {reason}") from error
    if names is None:
        raise MissingDataError(
            f"data.root={root}: no such folder; expected {root}/train/CLASS/*.jpg and "
            f"{root}/test/CLASS/*.jpg, or {root}/CLASS/*.jpg; set data.root=FOLDER"
        )
    if not names:
        raise MissingDataError(
            f"data.root={root}: {folder} holds no class folders; expected {folder}/CLASS/*.jpg"
        )
    for name in names:
        refuse_outside(folder / name, root)
    return names


def refuse_outside(path: Path, root: Path) -> None:
    """Raise MissingDataError where a link below ``root`` leads out of it."""
    leads_to = path.resolve()
    if not leads_to.is_relative_to(root.resolve()):
        raise MissingDataError(
            f"{path}: a link to {leads_to}, outside of data.root={root}; "
            f"put the files themselves there"
        )
