"""What is printed when a run is over: a short table, and the commands that come next."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from convtrain.runs.directory import Run
from convtrain.text import make_console

ERASE = "\r\x1b[K"
OTHER_STYLE = {"functional": "nn", "nn": "functional"}


def print_report(
    result: dict[str, Any], *, run_dir: Path, overrides: Sequence[str], style: str
) -> None:
    """Print the result of a run and what to type next."""
    run = relative(run_dir)
    console = make_console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if "test/acc" in result:
        of_what = " of the validation images" if result.get("tested_split") == "val" else ""
        table.add_row("test accuracy", f"{result['test/acc']:.2%}{of_what}")
        table.add_row("test loss", f"{result['test/loss']:.6f}")
    table.add_row("speed", f"{result['images_per_second']:,.0f} images/s")
    data = result["data_share_of_time"]
    table.add_row("held back by", f"{'data' if data > 0.5 else 'compute'} ({data:.0%} data)")
    table.add_row("wall time", f"{result['wall_time_seconds']:.1f} s")
    table.add_row("steps, epochs", f"{result['steps']}, {result['epochs']}")
    if recorder := result.get("recorder"):
        size = f"{recorder['bytes'] / 1000:,.0f} kB"
        table.add_row("recording", f"{recorder['share_of_time']:.1%} of the training time, {size}")
    table.add_row("run directory", run)
    console.print()
    console.print(table)
    for line in result.get("gradients", []):
        console.print(line)
    longer = f"trainer.max_epochs={2 * max(result['epochs'], 1)}"
    following = {
        "look at it": "tensorboard --logdir logs",
        "its gradients": f"python -m convtrain gradients {shlex.quote(run)}",
        "train longer": f"python train.py resume={shlex.quote(run)} {longer}",
    }
    if not recorder:
        del following["its gradients"]
    if not Run(run_dir).is_resumable:
        del following["train longer"]
    if style in OTHER_STYLE:
        kept = [o for o in overrides if not o.startswith(("model=", "resume=", "hydra."))]
        command = ["python", "train.py", *kept, f"model={OTHER_STYLE[style]}"]
        following["the other style"] = shlex.join(command)
    for what, command_line in following.items():
        console.print(f"{what:15}  {command_line}")


def print_line(result: dict[str, Any], overrides: Sequence[str]) -> None:
    """Print the result of one job of a sweep."""
    accuracy = f"test accuracy {result['test/acc']:.2%}, " if "test/acc" in result else ""
    if sys.stdout.isatty():
        print(ERASE, end="")  # the line on the whole sweep, which comes again
    line = f"{' '.join(overrides)}: {accuracy}{result['wall_time_seconds']:.1f} s"
    make_console().print(line)


def relative(path: Path) -> str:
    """Return a path as one would type it from the working directory."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
