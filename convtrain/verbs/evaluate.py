"""Test a run's model on its own data, or on other data with the same classes.

Other data is typed as for a training, by overrides of data: its shape, mean and std are those of
the training, and its classes are matched by their names.

Example: python -m convtrain evaluate logs/runs/lenet/RUN
Example: python -m convtrain evaluate logs/runs/lenet/RUN data=image_folder data.root=photographs
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from convtrain.config.dotted import value_at
from convtrain.errors import few
from convtrain.process.signals import Signals
from convtrain.program import relative
from convtrain.run.directory import TEST, Run
from convtrain.run.result import Result
from convtrain.text import format_metric, make_console

if TYPE_CHECKING:
    from convtrain.run.evaluation import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} RUN [options] [overrides of data, such as data.root=FOLDER]"
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument(
        "--checkpoint",
        help="best, last, the name of a file in RUN/checkpoints, or a file; by default the one "
        "that the run was tested with",
    )
    parser.add_argument(
        "--split", default=TEST, help="test, val, train or all images; by default test"
    )
    parser.add_argument("--tta", help="flip: the mean logits of each image and its mirror image")
    parser.add_argument(
        "--name", help="of the files in RUN/evaluations, if it is not to follow from the arguments"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; by default auto")
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    from convtrain.launch.libraries import importing_pipeline
    from convtrain.use.threads import use_threads_of

    here = Run(arguments.run)
    here.require()
    if not arguments.overrides:
        use_threads_of(here)  # before torch is imported
    with importing_pipeline():
        from convtrain.use.evaluate import evaluate

    with Signals() as signals:
        found = evaluate(
            here.path,
            arguments.overrides,
            checkpoint=arguments.checkpoint,
            split=arguments.split,
            tta=arguments.tta,
            name=arguments.name,
            device=arguments.device,
            signals=signals,
        )
    _print(here, found)
    return 0


def _print(run: Run, found: "Evaluation") -> None:
    console = make_console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for what, text in _rows(run, found):
        table.add_row(what, text)
    console.print(table)


def _rows(run: Run, found: "Evaluation") -> Iterator[tuple[str, str]]:
    from convtrain.config.data_sections import PUBLISHED

    has_one_place = found["data"] in (*PUBLISHED, "synthetic")
    of_what = found["data"] if has_one_place else found["source"]
    images = "images" if found["split"] == "all" else f"{found['split']} images"
    yield "images", f"{found['images']:,} {images} of {of_what}"
    for name, value in found["metrics"].items():
        if isinstance(value, int | float):
            yield name, format_metric(name, value)
    classes, left_out = found["classes"], found["left_out"]
    if unknown := classes["unknown"]:
        yield "unknown classes", f"{few(unknown)}: {left_out:,} images, which no metric counts"
    if missing := classes["missing"]:
        yield "missing classes", f"{few(missing)}: the data has none of them"
    yield "checkpoint", f"{found['checkpoint']}{', with mirror images' if found['tta'] else ''}"
    if found["name"] == TEST and (result := run.read_result()) is not None:
        yield f"as {run.result.name}", _compared(run, found, result)
    written = (run.evaluation(found["name"]), run.predictions(found["name"]))
    yield "written", ", ".join(relative(path) for path in written if path.is_file())


def _compared(run: Run, found: "Evaluation", result: Result) -> str:
    """Say whether the metrics have the bits of the run's own test."""
    before: Mapping[str, object] = {**result}
    wrong = [n for n, value in found["metrics"].items() if repr(value) != repr(before.get(n))]
    if not wrong:
        return "yes, to the last bit"
    devices = value_at(run.read_provenance(), "launched.devices", 1)
    why = f"; {devices} devices have divided its batches" if devices != 1 else ""
    pairs = (f"{n} was {before.get(n)}, is {found['metrics'][n]}" for n in wrong[:3])
    return f"no, {', '.join(pairs)}{why}"
