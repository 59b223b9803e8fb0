"""The tables that ``convtrain check --build`` prints of the data."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from convtrain.config.data_sections import GIB, ImageFiles
from convtrain.data.inspection import Files, Inspection
from convtrain.errors import one_line
from convtrain.process.hardware import cores
from convtrain.text import format_bytes, format_duration

MAX_CLASSES = 20  # that are all shown; of more, the ten largest and the ten smallest
EXTREME = 4  # longer side / shorter side
IMBALANCE = 3  # largest class / smallest class, from which on a remedy is named
LABEL_WIDTH, REASON_WIDTH = 28, 38  # characters of a line, so that 80 suffice
WHERE = {
    "in memory": "kept in memory",
    "in the cache": "kept in the cache",
    "in the files": "not kept",
    "nowhere": "more than data.memory_gib and data.cache_gib hold",
}


def inspection_tables(found: Inspection, root: Path, shape: Sequence[int]) -> Iterator[Table | str]:
    """Yield tables and lines; names of files are relative to ``root``."""
    if found.is_sample:
        yield (
            f"A sample, {len(found.seen.splits):,} of {found.images:,} images, evenly spaced. "
            f"Type --all to inspect every image\nand to find repeated ones."
        )
    yield _classes(found)
    yield from _imbalance(found)
    names = _names(found, root)
    table = _table("", ">images", "such as")
    table.columns[0].max_width = LABEL_WIDTH
    if found.files is not None:
        yield _formats(found.files)
        _add_sizes(table, found.files, names, shape)
        table.add_section()
        for why, paths in found.files.left_out:
            if paths:
                table.add_row(f"left out: {why}", f"{len(paths):,}", _relative(paths[0], root))
        table.add_section()
    for what, count, pairs in found.repeated:
        labels = found.seen.labels
        shown = [
            "\n= ".join(
                f"{names[place]} ({labels[place]})" if labels[a] != labels[b] else names[place]
                for place in (a, b)
            )
            for a, b in pairs
        ]
        table.add_row(what, f"{count:,}", "\n".join(shown))
    if table.row_count:
        yield table
    if found.files is not None and found.files.facts.refused:
        yield _refused(found.files, names)
    if found.mean and not np.isnan(found.mean).any():
        mean, std = (
            ",".join(f"{value:.6g}" for value in values) for values in (found.mean, found.std)
        )
        yield f"mean and deviation of the training images:\n'data.mean=[{mean}]' 'data.std=[{std}]'"


def storage_lines(found: Inspection, data: ImageFiles) -> Iterator[str]:
    """Say how large the decoded images are, where they are kept, and how long decoding takes."""
    if (files := found.files) is None:
        return
    each = files.facts.seconds / max(len(files.paths), 1)
    took = format_duration(each * found.images / cores())
    when = "each epoch" if files.kept == "in the files" else "once"
    size = files.stored_bytes
    yield (
        f"decoded images: {format_bytes(size)}, {WHERE[files.kept]}\n"
        f"decoding, {when}: about {took} on {cores()} cores"
    )
    if files.kept == "nowhere":
        chosen = ["data.decode=each_epoch"]
        if data.store_size is None:
            chosen = ["data.store_size=256 data.decode=each_epoch"]
        else:
            fits = int(data.store_size * math.sqrt(data.cache_gib * GIB / size)) // 8 * 8
            chosen += [f"data.store_size={fits}"] if fits >= min(data.shape[1:]) else []
        yield f"type {', or '.join(chosen)}, or a larger data.cache_gib"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(
            heading.lstrip(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
        )
    return table


def _classes(found: Inspection) -> Table:
    table = Table(box=box.SIMPLE, show_footer=True)
    total = f"{len(found.classes):,} classes"
    table.add_column("class", total, overflow="fold")
    for name in found.counts:
        table.add_column(name, f"{len(getattr(found.splits, name)):,}", justify="right")
    order = np.arange(len(found.classes))
    if len(order) > MAX_CLASSES:
        order = np.argsort(-found.counts["train"].numpy(), kind="stable")
    for place, label in enumerate(order.tolist()):
        if len(order) > MAX_CLASSES and place == MAX_CLASSES // 2:
            table.add_row("...", *["..."] * len(found.counts))
        if MAX_CLASSES // 2 <= place < len(order) - MAX_CLASSES // 2 and len(order) > MAX_CLASSES:
            continue
        row = (f"{int(counts[label]):,}" for counts in found.counts.values())
        table.add_row(found.classes[label], *row)
    return table


def _imbalance(found: Inspection) -> Iterator[str]:
    counts = found.counts["train"]
    if not len(counts) or counts.max() == counts.min():
        return
    largest, smallest = (found.classes[int(place)] for place in (counts.argmax(), counts.argmin()))
    if (least := int(counts.min())) == 0:
        yield f"{smallest} has no training images."
        return
    ratio = int(counts.max()) / least
    if ratio >= IMBALANCE:
        remedies = "data.sampling=balanced\nand loss.class_weights=balanced are remedies"
        if found.splits.train.labels.ndim > 1:
            remedies = "loss.class_weights=balanced\nis a remedy"
        yield (
            f"unbalanced: {largest} has {ratio:.3g} times the training images of {smallest}; "
            f"{remedies}"
        )


def _formats(files: Files) -> Table:
    table = _table("format", "mode", ">images", "read")
    for kind, count in Counter(kind for kind in files.facts.kinds if kind).most_common():
        table.add_row(kind.format, kind.mode, f"{count:,}", kind.rule)
    return table


def _add_sizes(table: Table, files: Files, names: Sequence[str], shape: Sequence[int]) -> None:
    used = np.array([place for place, kind in enumerate(files.facts.kinds) if kind], dtype=int)
    if not len(used):
        return
    sizes = files.facts.sizes[used].astype(np.int64)
    by_area = used[np.argsort(sizes.prod(1), kind="stable")]
    for what, place in (
        ("smallest", by_area[0]),
        ("median", by_area[(len(by_area) - 1) // 2]),
        ("largest", by_area[-1]),
    ):
        width, height = files.facts.sizes[place]
        table.add_row(what, f"{width}x{height}", names[place])
    height, width = shape[1:]
    for what, chosen in (
        (f"smaller than {width}x{height}", (sizes < (width, height)).any(1)),
        (f"longer than {EXTREME} to 1", sizes.max(1) > EXTREME * sizes.min(1)),
    ):
        if chosen.any():
            table.add_row(what, f"{chosen.sum():,}", names[used[chosen][0]])
    if others := files.facts.formats_not_named:
        place, form = next(iter(others.items()))
        table.add_row("another format than named", f"{len(others):,}", f"{names[place]} ({form})")


def _refused(files: Files, names: Sequence[str]) -> Table:
    table = _table("cannot be used", ">images", "such as")
    table.columns[0].max_width = REASON_WIDTH
    reasons: dict[str, list[int]] = {}
    for place, reason in files.facts.refused.items():
        reasons.setdefault(reason, []).append(place)
    for reason, places in reasons.items():
        table.add_row(one_line(reason), f"{len(places):,}", names[places[0]])
    return table


def _names(found: Inspection, root: Path) -> Sequence[str]:
    if found.files is not None:
        return [_relative(path, root) for path in found.files.paths]
    numbers: Counter[str] = Counter()
    names = []
    for split in found.seen.splits:
        names.append(f"{split} {numbers[split]}")
        numbers[split] += 1
    return names


def _relative(path: Path, root: Path) -> str:
    return one_line(str(path.relative_to(root) if path.is_relative_to(root) else path))
