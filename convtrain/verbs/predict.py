"""Predict the classes of image files with a trained model.

Example: python -m convtrain predict logs/runs/lenet/RUN photographs/ --csv predictions.csv
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convtrain.config.image_files import IMAGE_SUFFIXES
from convtrain.errors import ConfigError, MissingDataError, few, one_line
from convtrain.process.signals import Interrupted, Signals
from convtrain.text import make_console
from convtrain.use.image_paths import STDIN, check_paths, image_paths
from convtrain.use.prediction_summary import Summary

SIGPIPE = getattr(signal, "SIGPIPE", None)  # absent from Windows
SECONDS_BETWEEN_UPDATES = 0.25  # of the progress bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="image files, folders with all below them, quoted globs, or - for a list of paths "
        "on standard input",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="write a row for each image; - is standard output. Until all are predicted, the rows "
        "are in FILE.part. Without it, a table is shown",
    )
    parser.add_argument(
        "--topk", type=int, default=5, help="how many of the most probable classes (5)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images that the model gets at once, by default data.eval_batch_size of the run; "
        "another size may change the last bits of probabilities",
    )
    parser.add_argument(
        "--checkpoint",
        help="best, last, the name of a file in RUN/checkpoints, or the path of a file, if not "
        "that of the run's test",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto: a GPU if there is one"
    )


def run(arguments: argparse.Namespace) -> int:
    from convtrain.run.directory import Run

    for key in ("topk", "batch_size"):
        if (number := getattr(arguments, key)) is not None and number < 1:
            raise ConfigError(f"--{key.replace('_', '-')} {number}: choose 1 or more")
    if arguments.csv and arguments.csv.lower().endswith(IMAGE_SUFFIXES):
        raise ConfigError(
            f"--csv {arguments.csv}: is the name of an image, which the rows would replace; give "
            f"--csv a file such as predictions.csv"
        )
    Run(arguments.run).require()
    check_paths(arguments.paths)
    left_out = Counter[str]()
    paths = image_paths(arguments.paths, sys.stdin.buffer, left_out)
    if (first := next(paths, None)) is None:
        raise MissingDataError(_why_none(arguments.paths, left_out))
    # Threads that wait for the model's next operation take no time from those that decode.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it on import
    found = Summary()
    with Signals():
        try:
            _predict(arguments, chain([first], paths), found)
        except Interrupted as interrupted:
            if interrupted.signum != SIGPIPE:
                line = f"stopped by {interrupted} after {found.images:,} images{found.kept}"
                make_console(stderr=True).print(line)
            return interrupted.exit_status
    found.show(arguments.csv, left_out)
    return 1 if found.refused else 0


def _predict(arguments: argparse.Namespace, paths: Iterator[str], found: Summary) -> None:
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.use.load import load
        from convtrain.use.predict_files import predict_files
        from convtrain.use.predictions_csv import predictions_csv

    trained = load(arguments.run, arguments.checkpoint, device=arguments.device)
    topk = min(arguments.topk, len(trained.classes))
    with (
        predictions_csv(arguments.csv or os.devnull, topk, trained.multi_label) as csv,
        _progress_bar(arguments) as advance,
    ):
        found.begin(csv.place if arguments.csv else "")
        batches = predict_files(trained, paths, topk=topk, batch_size=arguments.batch_size)
        for predictions in batches:
            csv.add(predictions)
            found.add(predictions)
            advance(found.images)


@contextmanager
def _progress_bar(arguments: argparse.Namespace) -> Iterator[Callable[[int], None]]:
    """Show a bar if standard error is a terminal that does not show the rows as well."""
    console = make_console(stderr=True)
    if not console.is_terminal or (arguments.csv == "-" and sys.stdout.isatty()):
        yield lambda _: None
        return
    bar = Progress(
        BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), console=console, auto_refresh=False, transient=True,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    row, began, drawn = bar.add_task("", total=None, rate=""), time.monotonic(), 0.0

    def count() -> None:
        found = image_paths(arguments.paths, sys.stdin.buffer, Counter())
        bar.update(row, total=sum(1 for _ in found))

    counting = threading.Thread(target=count, daemon=True)

    def advance(done: int) -> None:
        nonlocal drawn
        if not drawn and STDIN not in arguments.paths:  # processes that decode have been started
            counting.start()
        if (now := time.monotonic()) - drawn > SECONDS_BETWEEN_UPDATES:
            drawn = now
            bar.update(row, completed=done, rate=f"{done / (now - began):,.0f} img/s")
            bar.refresh()

    with bar:
        yield advance


def _why_none(paths: Sequence[str], left_out: Counter[str]) -> str:
    named = few("standard input" if path == STDIN else one_line(path) for path in paths)
    return f"{named}: no images there{f', only {few(left_out)}' if left_out else ''}"
