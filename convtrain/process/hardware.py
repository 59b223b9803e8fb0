"""The CPU cores and GPUs that this process may use, found without torch."""

import os
from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def gpus_of(chosen: Sequence[int | str] | str | None) -> list[str]:
    """Return names for CUDA_VISIBLE_DEVICES; None and ``auto`` mean all visible GPUs."""
    if chosen is not None and not isinstance(chosen, str):
        return [str(name) for name in chosen]
    if (given := os.environ.get(VARIABLE)) is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import subprocess  # slow to import

    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]
