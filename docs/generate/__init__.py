"""Programs that write pages of the documentation: ``python -m docs.generate [PAGE ...]``.

Each module here writes the page of its own name: it holds ``PAGE``, a path, and ``page()``, which
returns the page's text. Tests compare the two.
"""

from pathlib import Path

DOCS = Path(__file__).parents[1]
