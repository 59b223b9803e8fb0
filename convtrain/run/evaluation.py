"""The content of ``evaluations/NAME.json``, what an evaluation of a run has measured."""

from typing import TypedDict


class Classes(TypedDict):
    """How the classes of the data and of the model go together, by their names.

    Attributes:
        matched: those of both.
        unknown: those of the data that the model does not know; their images are in no metric.
        missing: those of the model that the data does not have.
    """

    matched: list[str]
    unknown: list[str]
    missing: list[str]


class Evaluation(TypedDict):
    """A test of a run's model, at its end or by ``evaluate``.

    Attributes:
        name: that of the files, ``test`` at the end of the run.
        run_id: the run's, of its provenance.
        checkpoint: name of the file, or None if the weights were not saved.
        data: name of the data.
        source: the override that says where the images come from.
        split: ``test``, ``val``, ``train`` or ``all``; ``val`` also where there is no test split.
        images: number of images that the metrics are about.
        left_out: number of images of classes that the model does not know.
        tta: ``flip`` where an image and its mirror image were averaged, else None.
        multi_label: whether an image has any number of labels.
        metrics: as they are called in ``result.json``; ``all/loss`` and so on for that split.
        class_names: those of the model; predictions are indices in this list.
    """

    name: str
    run_id: str | None
    checkpoint: str | None
    data: str
    source: str
    split: str
    images: int
    left_out: int
    tta: str | None
    multi_label: bool
    metrics: dict[str, object]
    class_names: list[str]
    classes: Classes
