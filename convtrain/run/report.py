"""The report at the end of a run: a short table, and commands to type next."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from convtrain.config.schema import Config
from convtrain.program import relative, typed_in
from convtrain.run import commands
from convtrain.run.directory import LOGS, Run
from convtrain.run.result import METRICS, Result, metric_names, metric_of
from convtrain.text import format_bytes, make_console

ERASE = "\r\x1b[K"
OTHER_STYLE = {"functional": "nn", "nn": "functional"}


def print_report(
    result: Result, *, config: Config, run_dir: Path, overrides: Sequence[str]
) -> None:
    """Print the result of a run and commands to type next; ``overrides`` includes options."""
    console = make_console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if "test/acc" in result:
        of_what = " of the validation images" if result.get("tested_split") == "val" else ""
        table.add_row("test accuracy", f"{result['test/acc']:.2%}{of_what}")
        table.add_row("test loss", f"{result['test/loss']:.6f}")
    for name in metric_names(result)[len(METRICS) :]:
        if name.startswith("test/") and isinstance(value := metric_of(result, name), float):
            table.add_row(name.replace("/", " "), f"{value:.4g}")
    table.add_row("speed", f"{result['images_per_second']:,.0f} images/s")
    data = result["data_share_of_time"]
    table.add_row("bottleneck", f"{'data' if data > 0.5 else 'compute'} ({data:.0%} data)")
    table.add_row("wall time", f"{result['wall_time_seconds']:.1f} s")
    table.add_row("steps, epochs", f"{result['steps']}, {result['epochs']}")
    if (decay := result.get("ema")) is not None:
        table.add_row("weights", f"an average of the steps' (trainer.ema={decay:g})")
    if stopped_early := result.get("stopped_early"):
        table.add_row("stopped early", stopped_early)
    if recorder := result.get("recorder"):
        size = format_bytes(recorder["bytes"])
        table.add_row("recording", f"{recorder['share_of_time']:.1%} of the training time, {size}")
    table.add_row("run directory", relative(run_dir))
    if (page := Run(run_dir).report).is_file():
        table.add_row("report", relative(page))
    console.print()
    console.print(table)
    for line in result.get("gradients", []):
        console.print(line)
    for what, command in _next_commands(result, config, run_dir, overrides):
        console.print(f"{what:15}  {command}")


def _next_commands(
    result: Result, config: Config, run_dir: Path, overrides: Sequence[str]
) -> Iterator[tuple[str, str]]:
    if any(run_dir.glob("events.out.tfevents*")):
        logs = typed_in() / LOGS
        is_inside = run_dir.absolute().is_relative_to(logs)
        yield "look at it", commands.tensorboard_command(logs if is_inside else run_dir)
    if result.get("recorder"):
        yield "its gradients", commands.verb_command("gradients", run_dir)
    if Run(run_dir).is_resumable:
        limits = config.trainer.max_epochs, config.trainer.max_steps
        longer = commands.longer(result["epochs"], *limits)
        yield "train longer", commands.resume_command(run_dir, *longer)
    if (other := OTHER_STYLE.get(config.model.style)) is not None:
        kept = commands.without(overrides, "model.style", "resume")
        kept = [text for text in kept if commands.key_of(text) != "model"]
        yield "the other style", commands.train_command(*kept, f"model={other}")


def print_line(result: Result, overrides: Sequence[str]) -> None:
    """Print the result of one job of a sweep."""
    accuracy = f"test accuracy {result['test/acc']:.2%}, " if "test/acc" in result else ""
    if sys.stdout.isatty():
        print(ERASE, end="")  # erases the sweep's progress line, which is printed again
    typed = " ".join(text for text in overrides if not commands.is_option(text))
    make_console().print(f"{typed}: {accuracy}{result['wall_time_seconds']:.1f} s")
