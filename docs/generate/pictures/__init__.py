"""The pictures in ``docs/pictures``, which the README and the pages show."""

from docs.generate import DOCS

FOLDER = DOCS / "pictures"
NAMES = ("report", "predictions", "heat-map", "tensorboard", "terminal")
MAX_BYTES = 200_000
"""A page of GitHub loads them all."""
