"""What ``convtrain predict`` shows of its predictions."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from convtrain.errors import few, one_line
from convtrain.text import make_console

if TYPE_CHECKING:
    from convtrain.use.predict_files import FilePrediction

MAX_SHOWN = 40  # images in the table
MAX_NAMED = 3  # files that cannot be used


@dataclass
class Summary:
    """What was predicted so far, and the first predictions."""

    images: int = 0
    refused: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    first: list["FilePrediction"] = field(default_factory=list)
    first_refused: list["FilePrediction"] = field(default_factory=list)
    place: str = ""
    began: float = 0.0

    def begin(self, place: str) -> None:
        """Start the clock; ``place`` is where rows are written."""
        self.place, self.began = place, time.monotonic()

    def add(self, predictions: list["FilePrediction"]) -> None:
        self.images += len(predictions)
        self.first += predictions[: MAX_SHOWN - len(self.first)]
        for each in predictions:
            if each.error:
                self.refused += 1
                self.first_refused = [*self.first_refused, each][:MAX_NAMED]
            for name, _ in each.labels:
                self.labels[name] += 1

    @property
    def kept(self) -> str:
        return f"; {self.place} has their rows" if self.place and self.images else ""

    def show(self, csv: str | None, left_out: Counter[str]) -> None:
        """Print the table and the totals, and on standard error what was not predicted."""
        output, notes = make_console(), make_console(stderr=True)
        if csv is None:
            output.print(self._table())
            if (more := self.images - len(self.first)) > 0:
                output.print(f"and {more:,} more images, which --csv FILE would write")
        if csv != "-":
            rate = self.images / max(time.monotonic() - self.began, 1e-9)
            counts = few((f"{name} ({count:,})" for name, count in self.labels.most_common()), 20)
            to = "" if csv is None else f"{csv}: "
            output.print(f"{to}{_counted(self.images, 'image')}, {rate:,.0f} a second")
            output.print(f"predicted: {counts}")
        if left_out:
            named = few(f"{count:,} {suffix}" for suffix, count in left_out.most_common())
            notes.print(f"left out what is no image by its name: {named}")
        if self.refused:
            named = "; ".join(f"{one_line(e.path)}: {e.error}" for e in self.first_refused)
            more = self.refused - len(self.first_refused)
            also = f"; and {more:,} more" if more else ""
            notes.print(f"{_counted(self.refused, 'image')} cannot be used: {named}{also}")

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE)
        table.add_column("image", overflow="fold")
        table.add_column("label")
        table.add_column("probability", justify="right")
        table.add_column("others")
        for each in self.first:
            names = ", ".join(name for name, _ in each.labels)
            numbers = ", ".join(f"{p:.1%}" for _, p in each.labels)
            others = ", ".join(f"{name} {p:.1%}" for name, p in each.others)
            table.add_row(one_line(each.path), names, numbers, each.error or others)
        return table


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
