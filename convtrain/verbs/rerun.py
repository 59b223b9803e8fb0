"""Train a finished run again, and report whether the bits are the same.

The exit status is 1 if they are not.

Example: python -m convtrain rerun logs/runs/lenet/RUN
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError, MissingDataError
from convtrain.process.lock import locked
from convtrain.process.signals import Signals
from convtrain.process.stamp import new_stamp
from convtrain.run.directory import Run
from convtrain.text import make_console

if TYPE_CHECKING:
    from convtrain.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument("--out", metavar="DIR", help="directory of the new run, if not beside RUN")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.command.resolvers import register_resolvers
    from convtrain.launch.start import train_anywhere
    from convtrain.use.threads import use_threads_of

    register_resolvers()
    original = Run(arguments.run)
    config = _config_to_repeat(original)
    beside = original.path.absolute()
    folder = Path(arguments.out or beside.with_name(f"{beside.name}-rerun-{new_stamp()}"))
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: is not empty; give another directory")
    overrides = original.read_overrides()
    with locked(folder), Signals() as signals:
        form = "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"
        logging.basicConfig(filename=folder / "train.log", level=logging.INFO, format=form)
        make_console().print(f"trains {original.path} again, in {folder}")
        use_threads_of(original)
        train_anywhere(config, folder, overrides, signals)
    return 0 if _report(original, Run(folder)) else 1


def _config_to_repeat(original: Run) -> "Config":
    from convtrain.command.job_config import config_of
    from convtrain.process.ranks import as_launched

    original.require()
    original.finished_result()
    if not original.last_checkpoint.is_file():
        raise MissingDataError(
            f"{original.last_checkpoint}: does not exist, so there are no weights to compare"
        )
    config = config_of(original)
    _check_weights(original, config)
    launched = original.read_provenance().get("launched")
    known = launched if isinstance(launched, dict) else {}
    found = {k: n for k in ("devices", "num_nodes") if isinstance(n := known.get(k), int)}
    # A service would show the repetition as another run, and a logger's own file would mix both.
    changed = {
        "trainer": config.trainer.model_copy(update=found),
        "logger": config.logger.own_files,
    }
    config = config.model_copy(update=changed)
    as_launched(config)  # refuses devices that this process cannot use
    return config


def _check_weights(original: Run, config: "Config") -> None:
    """Raise ConfigError if the weights that the run began with are gone or have changed."""
    if config.model.starting_weights is None:
        return
    from convtrain.launch.libraries import importing_pipeline

    with importing_pipeline():
        from convtrain.training.starting_weights import refuse_changed

    refuse_changed(config, original.read_provenance())


def _report(original: Run, again: Run) -> bool:
    from convtrain.use.bits import compare_bits
    from convtrain.use.compare import provenance_rows

    console = make_console()
    bits = compare_bits(original.path, again.path)
    if bits.is_same:
        console.print(f"the same bits: {', '.join(bits.compared)}")
        return True
    console.print("not the same bits:")
    for line in bits.differing:
        console.print(f"  {line}")
    for row in provenance_rows(original, again):
        if not row.is_equal:
            console.print(f"  {row.key} was {row.values[0]}, is {row.values[1]}")
    return False
