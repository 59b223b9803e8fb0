"""The page of one run, ``report.html``. Imports no torch, except to read the first filters."""
