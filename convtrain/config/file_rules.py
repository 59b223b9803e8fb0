"""Rules that look at the files of the data, which a trained model does not need."""

from collections.abc import Callable, Iterator
from pathlib import Path

from convtrain.config.array_file import COMMON_CHANNELS, read_array_file
from convtrain.config.data_rules import class_count
from convtrain.config.data_sections import OWN_VALIDATION
from convtrain.config.folders import read_layout
from convtrain.config.groups.data import Arrays, Data, ImageFolder, LabelTable
from convtrain.config.groups.loss import Loss
from convtrain.config.label_table import read_table
from convtrain.config.loss_rules import several_labels
from convtrain.config.mistakes import Mistake, brief
from convtrain.errors import MissingDataError, did_you_mean, few

Mistakes = Iterator[Mistake]


def _folder(data: Data) -> Mistakes:
    if not isinstance(data, ImageFolder) or data.classes is None:
        return
    for index, name in enumerate(data.classes):
        if name in (".", "..") or Path(name).name != name:
            yield Mistake(f"data.classes.{index}", "must be the name of a folder in data.root")
            return
    try:
        allows = data.allow_missing_classes
        layout = read_layout(Path(data.root), data.classes, allow_missing=allows)
    except MissingDataError as error:
        yield Mistake("", str(error))
        return
    there = layout.folders
    if data.folds is not None and "val" in layout.splits:
        yield Mistake("data.folds", OWN_VALIDATION)
    if missing := [name for name in data.classes if name not in there]:
        yield Mistake("data.classes", f"no folder for {brief(missing)}; there are {brief(there)}")


def _table(data: Data) -> Mistakes:
    if not isinstance(data, LabelTable) or data.classes is None:
        return
    try:
        table = read_table(data.format)
        if data.folds is not None and "val" in table.splits:
            yield Mistake("data.folds", OWN_VALIDATION)
        there = sorted(table.classes_in("train"))
        there = table.classes if data.allow_missing_classes else there
        if missing := [name for name in data.classes if name not in there]:
            near = did_you_mean(missing[0], there)
            text = f"no images to train with in {data.source}; there are {few(there)}{near}"
            yield Mistake("data.classes", text)
        table.refuse_missing_files()
    except MissingDataError as error:
        yield Mistake("", str(error))


def _arrays(data: Data, loss: Loss) -> Mistakes:
    if not isinstance(data, Arrays) or data.class_count == 0:
        return
    try:
        found = read_array_file(data.file)
    except MissingDataError as error:
        yield Mistake("", str(error))
        return
    if found.is_multi_label:
        yield from several_labels(data, loss)
    count = found.classes
    if count > data.class_count or (found.is_multi_label and count < data.class_count):
        have = f"rows of {count} labels" if found.is_multi_label else f"labels up to {count - 1}"
        yield Mistake(class_count(data)[0], f"{data.source} has {have}; give {count} classes")
    channels = found.shape[0]
    if channels != data.shape[0] and not {channels, data.shape[0]} <= {*COMMON_CHANNELS}:
        text = f"the images of {data.source} have {channels} channels"
        yield Mistake("data.shape", f"{text}; type data.shape=[{channels},HEIGHT,WIDTH]")


FILE_RULES: tuple[Callable[..., Mistakes], ...] = (_folder, _table, _arrays)
