"""Write a declared network as a plain PyTorch file, in the style nn or functional.

The file imports torch alone, and torchvision where images are augmented. It has the network, and a
training loop in six steps. For a run, --weights writes the trained weights under the names that the
file gives them; --start writes those of model.weights, with which the loop begins.

Example: python -m convtrain code network=lenet model=nn
Example: python -m convtrain code RUN model=functional --out net.py --weights net.pt
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError, did_you_mean
from convtrain.process.atomic import write_atomically
from convtrain.process.output import print_file
from convtrain.program import as_typed, verb_words
from convtrain.run.directory import Run

if TYPE_CHECKING:
    from convtrain.config.schema import Config
    from convtrain.models.build import Style

STYLES: "dict[str, Style]" = {"model=nn": "nn", "model=functional": "functional"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    typed = as_typed("RUN [model=nn|functional] or overrides as for python train.py")
    parser.usage = f"{parser.prog} [--out FILE] [--weights FILE] [--start FILE] [{typed}]"
    parser.add_argument("--out", metavar="FILE", help="the file, if not standard output")
    parser.add_argument("--weights", metavar="FILE", help="a file for the weights of RUN")
    parser.add_argument(
        "--start", metavar="FILE", help="a file for the weights of model.weights, which are loaded"
    )
    parser.add_argument(
        "--checkpoint", help="of RUN: best, last, or a file; by default the one that was tested"
    )
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    typed: Sequence[str] = arguments.overrides
    has_run = bool(typed) and "=" not in typed[0] and not typed[0].startswith("-")
    for option in ("weights", "checkpoint"):
        if getattr(arguments, option) and not has_run:
            raise ConfigError(f"--{option}: needs a run; type its directory before the option")
    if arguments.out and Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out}: is a directory; give a file such as net.py")
    config, style = _of_run(typed) if has_run else (_composed(typed), None)
    from convtrain.use.code.write import write_code

    command = shlex.join([*verb_words("code"), *typed])
    head = f"Written by: {command}"
    if has_run:
        head += f"\n\n{_how_to_load(command, config, arguments.weights or 'weights.pt')}"
    run = Run(typed[0]) if has_run else None
    multi_label = run is not None and run.read_provenance().get("multi_label") is True
    start = Path(arguments.start or "start.pt")
    code = write_code(config, style, head, multi_label=multi_label, start=start.name)
    if arguments.start:
        from convtrain.use.code.weight_file import write_start

        write_start(code, config, run, start)
    if run is not None and arguments.weights:
        from convtrain.use.code.weight_file import write_weights

        write_weights(code, run, arguments.checkpoint, Path(arguments.weights))
    if arguments.out:
        write_atomically(Path(arguments.out), code.text)
    else:
        print_file(code.text)
    return 0


def _composed(overrides: Sequence[str]) -> "Config":
    from convtrain.command.configure import configure

    config, *others = configure(overrides).configs
    if others:
        raise ConfigError("-m: the code shows one network; leave it out")
    return config


def _of_run(typed: Sequence[str]) -> "tuple[Config, Style | None]":
    from convtrain.command.job_config import config_of

    run, *changed = Run(typed[0]), *typed[1:]
    run.require()
    for text in changed:
        if text not in STYLES:
            near = did_you_mean(text, STYLES) or f"; {' or '.join(STYLES)} chooses the other style"
            raise ConfigError(f"{text}: a run has its configuration{near}")
    return config_of(run, reads_data=False), STYLES[changed[-1]] if changed else None


def _how_to_load(command: str, config: "Config", weights: str) -> str:
    """Return what the file says of the run's weights."""
    from convtrain.use.code.weight_file import computes_channels_last

    load = "safetensors.torch.load_file" if weights.endswith(".safetensors") else "torch.load"
    lines = [
        "The weights of the run, under the names of this file:",
        f"    {command} --weights {shlex.quote(weights)}",
        f'    model.load_state_dict({load}("{Path(weights).name}"))',
    ]
    if computes_channels_last(config):
        lines.append(
            "    model.to(memory_format=torch.channels_last)  # and the images, for the same bits"
        )
    return "\n".join(lines)
