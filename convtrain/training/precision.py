"""The numerical precision of a model outside of a training."""

from pytorch_lightning.plugins import DoublePrecision, MixedPrecision, Precision

from convtrain.errors import ConfigError


def make_precision(name: int | str, device: str) -> Precision:
    """Return Lightning's plugin for a ``trainer.precision``, as a Trainer would choose it.

    Args:
        device: type of the device, such as ``cpu``, which has no float16: bfloat16 replaces it.
    """
    match str(name):
        case "32" | "32-true":
            return Precision()
        case "64" | "64-true":
            return DoublePrecision()
        case "bf16-mixed":
            return MixedPrecision("bf16-mixed", device)
        case "16-mixed":
            return MixedPrecision("bf16-mixed" if device == "cpu" else "16-mixed", device)
    raise ConfigError(f"precision={name}: choose 32, 64, bf16-mixed or 16-mixed")
