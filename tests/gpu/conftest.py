"""``make test-gpu``: what only a GPU can show. Without one, all of it is skipped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# cuBLAS reads it once, when a process first multiplies matrices on the GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(autouse=True)
def _global_settings_as_before() -> Iterator[None]:
    """Undo what ``trainer.deterministic`` and precision set for the whole process."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.cuda.set_sync_debug_mode("default")
