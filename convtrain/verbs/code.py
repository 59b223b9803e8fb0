"""Write a declared network as a plain PyTorch file, in the style nn or functional.

The file imports torch alone: the network, and a training loop of six steps. For a run, --weights
writes the trained weights under the names that the file has.

Example: python -m convtrain code network=lenet model=nn
Example: python -m convtrain code RUN model=functional --out net.py --weights net.pt
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError
from convtrain.program import as_typed

if TYPE_CHECKING:
    pass

STYLES = {f"model={style}": style for style in ("nn", "functional")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    typed = as_typed("RUN [model=nn|functional] | overrides as for python train.py")
    parser.usage = f"{parser.prog} [--out FILE] [--weights FILE] [{typed}]"
    parser.add_argument("--out", metavar="FILE", help="the file, if not the standard output")
    parser.add_argument("--weights", metavar="FILE", help="a file for the weights of RUN, as .pt")
    parser.add_argument("--checkpoint", default="best", help="of RUN: best, last or a file's name")
    parser.set_defaults(overrides=[])


def run(arguments: argparse.Namespace) -> int:
    typed: Sequence[str] = arguments.overrides
    from_run = bool(typed) and "=" not in typed[0] and not typed[0].startswith("-")
    if arguments.weights and not from_run:
        raise ConfigError("--weights: needs the directory of a run, whose weights it writes")
    config = _config_of_run(typed) if from_run else _composed(typed)
    from convtrain.use.code.write import write_code

    words = [as_typed("python -m convtrain"), "code", *typed]
    head = f"convtrain wrote this file: {' '.join([words[0], shlex.join(words[1:])])}"
    if from_run:
        head += "\n" + _how_to_load(arguments, typed)
    code = write_code(config, head=head)
    if arguments.weights:
        from convtrain.use.code.weight_file import write_weights

        write_weights(code, typed[0], arguments.checkpoint, arguments.weights)
    if arguments.out:
        Path(arguments.out).write_text(code.text, encoding="utf-8")
    else:
        sys.stdout.write(code.text)
    return 0
