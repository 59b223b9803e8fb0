"""Programs that write pages of the documentation: ``python -m docs.generate [PAGE ...]``.

Each module here writes the page of its own name, or a part of a page: it holds ``PAGE``, a path,
and ``page()``, which returns the page's text. Tests compare the two. :mod:`docs.generate.shell`
runs what the pages say, and ``python -m docs.generate.pictures`` makes their pictures.
"""

from pathlib import Path

DOCS = Path(__file__).parents[1]
