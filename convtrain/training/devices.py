"""The devices of this machine."""

from typing import Literal

import torch

from convtrain.errors import ConfigError


def kind_of_device(accelerator: str) -> Literal["cpu", "gpu", "mps"]:
    """Return the kind of device that ``trainer.accelerator`` selects on this machine."""
    if accelerator in ("gpu", "auto") and torch.cuda.is_available():
        return "gpu"
    if accelerator in ("mps", "auto") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def device_count(accelerator: str) -> int:
    """Return the number of devices of a kind; for ``auto``, of the kind that it selects."""
    found = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    return found.get(accelerator, 1) if accelerator != "auto" else max(found["gpu"], 1)


def check_devices(accelerator: str, devices: int | str, strategy: str = "auto") -> None:
    """Raise ConfigError unless this machine has the devices."""
    if strategy == "fsdp" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.strategy=fsdp: this machine has no GPU to shard a model over; "
            "type trainer=ddp_cpu"
        )
    if accelerator not in ("gpu", "mps"):
        return
    found = device_count(accelerator)
    if found == 0:
        raise ConfigError(
            f"trainer.accelerator={accelerator}: this machine has no such device; type trainer=cpu"
        )
    if isinstance(devices, int) and devices > found:
        raise ConfigError(
            f"trainer.devices={devices}: this machine has {found}; type trainer.devices={found}"
        )
