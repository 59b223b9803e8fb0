"""Write ``report.html``, the page of a run, from the files in its directory."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from markupsafe import Markup

from convtrain.config.dotted import value_at
from convtrain.errors import CorruptDataError
from convtrain.gradients.diagnosis.offline import diagnose
from convtrain.pages.page import write_page
from convtrain.program import typed_in
from convtrain.report import figures, headline
from convtrain.report.changes import changes
from convtrain.report.classes import ClassCounts, most_confused
from convtrain.report.record import read_condensed
from convtrain.report.tested import Tested, read_tested
from convtrain.run import commands
from convtrain.run.curves import Curve, read_curves
from convtrain.run.directory import Run
from convtrain.run.result import Result

TEMPLATE = Path(__file__).with_name("page.html.j2")
MOST_IN_MATRIX, MOST_IN_TABLE = 100, 60
"""Classes; of more, the page shows the most confused pairs and the worst classes alone."""
MOST_PAIRS, MOST_WORST = 12, 20
LONG = 120  # letters of a value; a longer one is folded
SHOWN_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy")

Read = TypeVar("Read")


def write_report(run: Run, config: Mapping[str, object] | None = None) -> Path:
    """Write the page of a run in any state, and return its path.

    Args:
        config: the configuration of the run; read from its directory if it is left out.

    Raises:
        MissingDataError: the directory holds no run.
        CorruptDataError: its configuration cannot be read. The page names other damaged files.
        TrainingError: the disk is full or cannot be written to.
    """
    config = config or run.read_config()
    damaged: list[str] = []

    def read(reader: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return reader()
        except CorruptDataError as error:
            damaged.append(str(error))
            return otherwise

    result = read(run.read_result, None)
    provenance = read(run.read_provenance, dict[str, object]())
    tested = read(lambda: read_tested(run), None)
    curves = read(lambda: read_curves(run.path), dict[str, Curve]())
    record = read_condensed(run.path)
    write_page(
        run.report,
        TEMPLATE,
        title=f"{headline.model_of(config)} on {value_at(config, 'data.name', 'images')}",
        run=run,
        standing=headline.standing(run, result),
        described=headline.described(config, result, provenance, curves),
        tiles=list(headline.tiles(result, curves, tested)),
        remarks=[
            *headline.remarks(config, result, curves, tested),
            *damaged,
        ],
        curves=list(figures.curve_figures(curves, result, config)),
        tested=tested,
        predictions=_predictions(tested),
        tables=list(_tables(tested)),
        mistakes=figures.mistake_pictures(tested) if tested and tested.mistakes else "",
        diagnosis=(result and result.get("gradients")) or (diagnose(run.path) if record else []),
        record=list(figures.gradient_figures(record)) if record else [],
        filters=figures.filter_figure(_checkpoint(run, result)),
        time=list(figures.time_figures(curves, result)),
        speed=_speed(result),
        changes=changes(config),
        long=LONG,
        provenance=list(_provenance(provenance)),
        packages=_versions(provenance),
        folder=typed_in(),
        commands=list(_commands(run, result, config)),
    )
    return run.report


# --- predictions ----------------------------------------------------------------------------------


def _predictions(tested: Tested | None) -> list[Markup]:
    found: list[Markup] = []
    if tested is not None and tested.confusion is not None:
        if len(tested.counts.names) <= MOST_IN_MATRIX:
            found.append(figures.matrix(tested.confusion, tested.counts.names))
        if tested.calibration is not None:
            found.append(figures.reliability(tested.calibration))
    return found


def _tables(
    tested: Tested | None,
) -> Iterator[tuple[str, str, list[tuple[str, bool]], list[list[str]]]]:
    """Yield title, note, columns and rows of each table about the predictions."""
    if tested is None:
        return
    counts = tested.counts
    shown: Iterable[int] = range(len(counts.names))
    title = "By class"
    if len(counts.names) > MOST_IN_TABLE:
        shown, title = counts.worst()[:MOST_WORST], f"The {MOST_WORST} classes with the lowest F1"
    yield (
        title,
        "Precision: of the images predicted as this class, the part that belongs to it. Recall: "
        "of the images of this class, the part that was found. F1 is high only if both are. "
        "Images: how many the test has of the class; with few, these numbers are rough.",
        [("class", False), *((name, True) for name in ("precision", "recall", "F1", "images"))],
        [_class_row(counts, index) for index in shown],
    )  # fmt: skip
    if tested.confusion is None or not (pairs := most_confused(tested.confusion, MOST_PAIRS)):
        return
    yield (
        "Most confused",
        "Images of the first class that were predicted as the second.",
        [("true class", False), ("predicted as", False), ("images", True), ("of the class", True)],
        [
            [counts.names[p.true], counts.names[p.predicted], f"{p.images:,}", f"{p.part:.1%}"]
            for p in pairs
        ],
    )


def _class_row(counts: ClassCounts, index: int) -> list[str]:
    numbers = (counts.precision[index], counts.recall[index], counts.f1[index])
    return [
        counts.names[index],
        *("-" if np.isnan(number) else f"{number:.1%}" for number in numbers),
        f"{counts.support[index]:,}",
    ]


def _checkpoint(run: Run, result: Result | None) -> Path:
    """Return the checkpoint that was tested, or the last one."""
    name = result.get("tested_checkpoint") if result is not None else None
    return run.checkpoints / Path(name).name if name else run.last_checkpoint


# --- the rest -------------------------------------------------------------------------------------


def _speed(result: Result | None) -> str:
    if result is None or "images_per_second" not in result:
        return ""
    data = result["data_share_of_time"]
    return (
        f"Training went through {result['images_per_second']:,.0f} images a second, and waited for "
        f"batches in {data:.0%} of its time: {'the data' if data > 0.5 else 'computing'} is the "
        f"bottleneck."
    )


def _provenance(provenance: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    def known(key: str) -> str:
        value = value_at(provenance, key, None)
        return "" if value is None else str(value)

    versions = [
        f"{name} {version}" for name in SHOWN_PACKAGES if (version := known(f"packages.{name}"))
    ]
    command, launched = provenance.get("command"), provenance.get("launched")
    parts = {
        "command": shlex.join(map(str, command)) if isinstance(command, list) else "",
        "typed in": known("project.folder"),
        "git, of this folder": _git(provenance.get("project")),
        "convtrain": known("convtrain"),
        "git, of convtrain": _git(provenance),
        "versions": ", ".join([f"Python {known('python')}", *versions] if versions else []),
        "machine": known("platform"),
        "device": known("device"),
        "threads": known("threads"),
        "processes": ", ".join(f"{k} {v}" for k, v in launched.items())
        if isinstance(launched, dict)
        else "",
        "seed": known("seed"),
        "data fingerprint": known("data"),
        "run id": known("run_id"),
    }
    yield from ((name, text) for name, text in parts.items() if text)


def _versions(provenance: Mapping[str, object]) -> dict[str, str]:
    packages = provenance.get("packages")
    found = packages if isinstance(packages, dict) else {}
    return {str(name): str(version) for name, version in found.items()}


def _images(run: Run, config: Mapping[str, object]) -> Path:
    """Return the folder of a run's own images, if they are files, or else the present one."""
    root, file = value_at(config, "data.root", None), value_at(config, "data.file", None)
    name = value_at(config, "data.name", None)
    if name == "csv" and root is None and isinstance(file, str):
        root = str(Path(file).parent)
    if name in ("image_folder", "csv") and isinstance(root, str):
        with suppress(CorruptDataError):
            typed = value_at(run.read_provenance(), "project.folder", None)
            folder = Path(typed if isinstance(typed, str) else "") / root
            return folder if folder.is_dir() else typed_in()
    return typed_in()


def _git(recorded: object) -> str:
    commit = value_at(recorded, "git_commit", None)
    if not commit:
        return ""
    return f"commit {commit}{'' if value_at(recorded, 'git_clean', True) else ', with changes'}"


def _commands(
    run: Run, result: Result | None, config: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Yield what each command does, and the command."""
    if result is None:
        yield "resume it" if run.is_resumable else "start it again", run.resume_command()
    elif run.is_resumable:
        yield "repeat it, and compare the bits", commands.verb_command("rerun", run.path)
        limits = (value_at(config, f"trainer.max_{what}", None) for what in ("epochs", "steps"))
        epochs, steps = (limit if isinstance(limit, int) else 0 for limit in limits)
        longer = commands.longer(result["epochs"], epochs, steps)
        yield "train longer", run.resume_command(*longer)
    if run.is_resumable:
        yield "evaluate it", commands.verb_command("evaluate", run.path)
        yield "predict images", commands.verb_command("predict", run.path, _images(run, config))
    yield "write this page again", commands.verb_command("report", run.path)
