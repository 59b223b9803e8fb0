"""Train a declared network: ``python train.py model=functional optimizer.lr=0.05``.

Hydra composes the configuration from ``configs/``, the schema checks it, and the pipeline trains.
"""

import sys

from convtrain.process.startup import imports_without_gc, running_as_command

if __name__ == "__main__":
    with running_as_command():
        with imports_without_gc():
            from convtrain.launch.command import run_command
        run_command(sys.argv[1:])
