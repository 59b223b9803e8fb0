"""``python -m tests.gpu.killed RUN BATCH OVERRIDES``: a training that SIGKILL ends in a batch."""

import sys
from pathlib import Path
from unittest import mock

from convtrain import pipeline
from convtrain.training.task import Task
from tests.conftest import compose
from tests.killing import kill, nth_call

if __name__ == "__main__":
    deadly = nth_call(int(sys.argv[2]), kill, Task.training_step)
    with mock.patch.object(Task, "training_step", deadly):
        pipeline.train(compose(*sys.argv[3:]), Path(sys.argv[1]))
