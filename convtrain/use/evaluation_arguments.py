"""The arguments of an evaluation, and the name that follows from them."""

import re
from collections.abc import Sequence
from pathlib import Path

from convtrain.errors import ConfigError, did_you_mean
from convtrain.run.directory import TEST, Run
from convtrain.training.devices import device_count

ALL = "all"
SPLITS = ("test", "val", "train", ALL)
DEVICES = ("auto", "cpu", "cuda")
FLIP = "flip"
PLACES = ("data.root", "data.file")
MAX_NAME = 100  # characters


def default_name(
    overrides: Sequence[str], checkpoint: Path | str | None, split: str, tta: str | None
) -> str:
    """Return the name of an evaluation: what it evaluates, and how."""
    parts, typed = [split], dict(text.partition("=")[::2] for text in overrides)
    if any(key in typed for key in PLACES):
        typed.pop("data", None)
    for key, value in typed.items():
        last = Path(value).name
        parts.append(last if key in ("data", *PLACES) else f"{key.rpartition('.')[2]}-{last}")
    parts += [Path(checkpoint).stem] if checkpoint else []
    parts += [tta] if tta else []
    return re.sub(r"[^\w+.-]+", "-", "-".join(parts)).strip("-.")[:MAX_NAME]


def check_arguments(
    run: Run,
    overrides: Sequence[str],
    checkpoint: Path | str | None,
    *,
    split: str,
    tta: str | None,
    name: str | None,
    device: str,
) -> None:
    """Raise ConfigError if an argument other than the overrides cannot be used."""
    chosen = {"split": (split, SPLITS), "tta": (tta, (None, FLIP)), "device": (device, DEVICES)}
    for key, (value, known) in chosen.items():
        if value not in known:
            raise ConfigError(
                f"--{key} {value}: choose from {', '.join(filter(None, known))}"
                f"{did_you_mean(str(value), filter(None, known))}"
            )
    if name is not None and not re.fullmatch(rf"[\w+-][\w+.-]{{0,{MAX_NAME - 1}}}", name):
        raise ConfigError(
            f"--name {name}: is the name of a file, of letters, digits, and the signs + - . _"
        )
    if name == TEST and (overrides or checkpoint or tta or split != TEST):
        raise ConfigError(
            f"--name {name}: is that of the test at the end of {run.path}; give another name"
        )
    if device == "cuda" and not device_count("gpu"):
        raise ConfigError("--device cuda: this machine has no GPU; type --device cpu")
