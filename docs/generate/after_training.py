"""docs/after-training.md: what each of its commands prints, from runs on the digits.

A block of commands that a block of text follows is run, and the text becomes what it prints.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from docs.generate import DOCS
from docs.generate.shell import Shell

PAGE = DOCS / "after-training.md"
INSIDE = "(?:(?!```).)*"  # of a block
SHOWN = re.compile(f"```sh\n(?P<commands>{INSIDE})```\n\n```text\n{INSIDE}```\n", re.DOTALL)
TRAININGS = ("RUN 'metrics=[f1,auroc]'", "RUN_B optimizer=adamw optimizer.lr=0.003")
PHOTOGRAPHS = 60


def page() -> str:
    """Return the page with what its commands print now."""
    with TemporaryDirectory() as place:
        here = Path(place) / "here"
        here.mkdir()
        shell = Shell(here, Path(place) / "tools")
        for typed in TRAININGS:
            shell.run(f"convtrain train hydra.run.dir={typed}")
        write_images(here)

        def printed(found: re.Match[str]) -> str:
            commands = found["commands"]
            lines = shell.run(commands).rstrip().splitlines()
            text = "".join(f"{line.rstrip()}\n" for line in lines)
            return f"```sh\n{commands}```\n\n```text\n{text}```\n"

        return SHOWN.sub(printed, PAGE.read_text())


def write_images(here: Path) -> None:
    """Write files to predict, ``photographs``, and images by class, one of them new, ``others``."""
    from convtrain import load
    from convtrain.assembly import make_data

    test = make_data(load(here / "RUN").config).splits.test
    pixels, labels = test.read(torch.arange(PHOTOGRAPHS)), test.labels
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=False)):
        picture = Image.fromarray(image[0].numpy())
        files = [here / "others" / ("eight" if label == 8 else str(label)) / f"{number}.png"]
        files += [here / "photographs" / f"{number}.png"] if number < 5 else []
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
    (here / "photographs" / "broken.png").write_bytes(b"not an image")
