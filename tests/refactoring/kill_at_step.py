"""Run ``train.py`` until SIGKILL ends it after a step: ``python kill_at_step.py N train.py ...``.

The optimiser's hook of torch counts the steps, so that this works whatever the code looks like.
"""

import os
import runpy
import signal
import sys
from itertools import count
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

if __name__ == "__main__":
    last, steps = int(sys.argv[1]), count(1)

    def kill_after_last(*_: Any) -> None:
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(kill_after_last)
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
