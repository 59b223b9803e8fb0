"""The keys of ``hydra.launcher``, and the values that they allow."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from convtrain.config.mistakes import Mistake
from convtrain.config.section import MAX_COUNT, Count, Text, Whole
from convtrain.errors import did_you_mean

VALUES: dict[str, Any] = {
    # joblib
    "n_jobs": Annotated[int, Field(ge=-MAX_COUNT, le=-1)] | Count,
    "backend": Literal["loky"] | None,
    "prefer": Literal["processes"] | None,
    "require": None,
    "verbose": Whole,
    "timeout": Annotated[float, Field(gt=0)] | None,
    "pre_dispatch": Annotated[str, Field(pattern=r"^(all|(\d+\*)?n_jobs|\d+)$")] | Count,
    "batch_size": Annotated[str, Field(pattern=r"^(auto|\d+)$")] | Count,
    "temp_folder": Text | None,
    "max_nbytes": Annotated[str, Field(pattern=r"^\d+[KMG]?$")] | Count | None,
    "mmap_mode": Literal["r", "r+", "w+", "c"] | None,
    # submitit
    "timeout_min": Count,
    "cpus_per_task": Count | None,
    "gpus_per_node": Whole | None,
    "tasks_per_node": Count,
    "mem_gb": Count | None,
    "nodes": Count,
    "name": Text,
    "stderr_to_stdout": bool,
    "cpus_per_gpu": Count | None,
    "gpus_per_task": Whole | None,
    "signal_delay_s": Whole,
    "max_num_timeout": Whole,
    "array_parallelism": Count,
    "setup": list[Text] | None,
    "additional_parameters": dict[str, object],
}  # fmt: skip
"""What a key may hold. joblib's jobs must be processes, because threads would share a training's
random state. joblib evaluates ``pre_dispatch`` as code."""


def launcher_mistakes(launcher: dict[str, object]) -> Iterator[Mistake]:
    """Yield the keys that a launcher does not know, and the values that it cannot take."""
    known = _known_keys(launcher.get("_target_"))
    for key, value in launcher.items():
        if key == "_target_":
            continue
        if known is not None and key not in known:
            yield Mistake(f"hydra.launcher.{key}", unknown_key(key, known))
        elif key in VALUES and (reason := _refusal(VALUES[key], value)) is not None:
            yield Mistake(f"hydra.launcher.{key}", reason)


def _known_keys(target: object) -> list[str] | None:
    for entry in ConfigStore.instance().repo.get("hydra", {}).get("launcher", {}).values():
        node = OmegaConf.create(entry.node)
        if OmegaConf.is_dict(node) and node.get("_target_") == target:
            return [str(key) for key in node]
    return None


def unknown_key(key: str, declared: Sequence[str]) -> str:
    """Return what to say of a key that a launcher's node does not declare."""
    known = [name for name in declared if name != "_target_"]
    here = f"; known here: {', '.join(known)}" if known else "; it has none"
    return f"no such key of this launcher{did_you_mean(key, known) or here}"


def _refusal(allowed: Any, value: object) -> str | None:
    try:
        TypeAdapter(allowed).validate_python(value, strict=True)
    except ValidationError as error:
        texts = [wrong["msg"].replace("Input should be", "must be") for wrong in error.errors()]
        return " or ".join(dict.fromkeys(texts)).replace(" or must be ", " or ")
    return None
