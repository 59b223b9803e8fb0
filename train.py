"""Train a declared network: ``python train.py model=functional optimizer.lr=0.05``.

Hydra composes the configuration from ``configs/``, the schema checks it, and the pipeline trains.
Nothing heavy is imported at the top, so that ``--help`` and a mistyped key answer at once.
"""

import sys

from convtrain.launch.command import run_command
from convtrain.process.startup import running_as_command

if __name__ == "__main__":
    with running_as_command():
        run_command(sys.argv[1:])
