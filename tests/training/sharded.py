"""``python -m tests.training.sharded RANK PROCESSES PORT RUN OVERRIDES``: fsdp on the CPU.

The command refuses ``trainer.strategy=fsdp`` without a GPU, because it would only be slower; what
it does to weights, gradients, checkpoints and pictures can be seen on the CPU all the same.
"""

import os
import sys
from pathlib import Path
from unittest import mock


def main(rank: int, processes: int, port: str, run: Path, overrides: list[str]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), GROUP_RANK="0",
        LOCAL_WORLD_SIZE=str(processes), GROUP_WORLD_SIZE="1", TORCHELASTIC_RUN_ID="sharded",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
    )  # fmt: skip
    import torch

    from convtrain import pipeline
    from convtrain.training import trainer
    from tests.conftest import compose

    torch.set_num_threads(1)
    config = compose("trainer=cpu", *overrides)
    divided = config.trainer.model_copy(update={"strategy": "fsdp", "devices": processes})
    resume = str(run) if any(run.glob("checkpoints/*.ckpt")) else None
    config = config.model_copy(update={"trainer": divided, "resume": resume})
    with mock.patch.object(trainer, "check_devices", return_value=None):
        pipeline.train(config, run)
    # A divided model lies in reference cycles and keeps gloo's threads alive, which abort a process
    # that ends in the usual way (pytorch/pytorch#190489).
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5:])
