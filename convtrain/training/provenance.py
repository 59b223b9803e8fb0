"""The provenance of a run: code, versions, machine."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import convtrain
from convtrain.process.hardware import VARIABLE

PACKAGES = ("torchvision", "pytorch-lightning", "hydra-core", "numpy")


def collect_provenance(*, seed: int, device: str) -> dict[str, object]:
    """Return the state of git, versions, device, threads, seed and command, as plain values."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "convtrain": convtrain.__version__,
        "git_commit": commit,
        "git_clean": None if changes is None else changes == "",
        "python": platform.python_version(),
        "packages": {"torch": torch.__version__, **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "gpus": os.environ.get(VARIABLE),
        "seed": seed,
        "command": sys.argv,
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
