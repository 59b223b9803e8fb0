"""Write the weights of a run as one safetensors file.

Example: python -m convtrain export logs/runs/lenet/RUN --checkpoint best --out lenet.safetensors
"""

import argparse

from convtrain.text import format_bytes, make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument(
        "--checkpoint", default="last", help="last, best, or the name of a file in RUN/checkpoints"
    )
    parser.add_argument("--out", metavar="FILE", help="the file, if not RUN/weights.safetensors")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.use.export import export_weights

    file, source, count = export_weights(
        arguments.run, checkpoint=arguments.checkpoint, out=arguments.out
    )
    size = format_bytes(file.stat().st_size)
    make_console().print(f"{file}: {count} tensors, {size}, from {source.name}")
    return 0
