"""Write the page of a run: curves, mistakes, gradients, and commands to type next.

It is RUN/report.html, one file that needs no other. A run that has ended has one already; of a run
that is still training, or was interrupted, the page shows what there is so far.

Example: python -m convtrain report logs/runs/lenet/RUN
"""

import argparse

from convtrain.program import relative
from convtrain.run.directory import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.report.page import write_report

    print(relative(write_report(Run(arguments.run))))
    return 0
