"""Hydra's own node: what in it names code, leads out of a folder, or cannot be carried out."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.messages import Mistake
from convtrain.config.targets import refusal, trusted_packages

PLUGINS = (
    "hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.", "convtrain.sweeps.",
)  # fmt: skip
LOGGING_CLASSES = (
    "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter",
    "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
    "colorlog.ColoredFormatter", "colorlog.StreamHandler",
)  # fmt: skip
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
RUN_FOLDER = ("${hydra.runtime.output_dir}/", "${hydra.run.dir}/", "${hydra.sweep.dir}/")
RESOLVERS = ("run_name", "run_dir", "sweep_dir", "direction", "oc.select", "oc.env", "now", "hydra")
_INTERPOLATION = re.compile(r"\$\{([^:{}]*)([:{}])")
VARIABLES = "hydra.job.env_set."
ENVIRONMENT = ("CUDA_", "CUBLAS_", "NCCL_", "GLOO_", "OMP_", "MKL_", "KMP_", "PYTORCH_")


def hydra_mistakes(hydra: DictConfig, trust: Any, typed: Sequence[str]) -> Iterator[Mistake]:
    """Yield what is wrong in Hydra's node of a composed configuration.

    Args:
        hydra: the node, part of its configuration, so that it can be resolved.
        trust: packages whose classes may be named.
        typed: the overrides, which ``hydra.job.override_dirname`` makes a path of.
    """
    raw, trusted = OmegaConf.to_container(hydra, resolve=False), trusted_packages(trust)
    for key, value in _leaves(raw, "hydra"):
        text = value if isinstance(value, str) else ""
        if key.endswith("._target_"):
            if (reason := refusal(value, trusted, PLUGINS)) is not None:
                yield Mistake(key, reason)
        elif key.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
            yield from _logging(key, text)
        elif key.startswith("hydra.overrides."):
            continue  # a record of what was typed
        elif not all(_is_known(*found) for found in _INTERPOLATION.findall(text)):
            yield Mistake(key, f"may use no other resolvers than {', '.join(RESOLVERS)}")
        elif key.startswith(VARIABLES) and not key.removeprefix(VARIABLES).startswith(ENVIRONMENT):
            allowed = ", ".join(f"{prefix}*" for prefix in ENVIRONMENT)
            yield Mistake(key, f"not among the variables that may be set: {allowed}")
    yield from _paths(hydra, raw, typed)
    if not isinstance(hydra.get("verbose"), bool | str) and not OmegaConf.is_list(hydra.verbose):
        yield Mistake("hydra.verbose", "must be true, false, or the names of loggers")


def searchpath_mistakes(folders: Any) -> Iterator[Mistake]:
    """Yield the entries of ``hydra.searchpath`` that would import a package to look inside."""
    for index, folder in enumerate(folders if isinstance(folders, list) else [folders]):
        if isinstance(folder, str) and folder.strip().startswith(("pkg:", "structured:")):
            yield Mistake(
                f"hydra.searchpath.{index}", "would import a package; name a folder: file:///FOLDER"
            )


def _is_known(name: str, behind: str) -> bool:
    """Tell whether an interpolation is of a key, or by a resolver that makes no containers."""
    return behind == "}" or (behind == ":" and name.strip() in RESOLVERS)


def _logging(key: str, text: str) -> Iterator[Mistake]:
    leaf = key.rsplit(".", maxsplit=1)[-1]
    if leaf in ("class", "()") and text not in LOGGING_CLASSES:
        yield Mistake(key, f"must be one of {', '.join(LOGGING_CLASSES)}")
    elif text.startswith(("ext://", "cfg://")) and text not in STREAMS:
        yield Mistake(key, f"must be one of {', '.join(STREAMS)}")
    elif leaf == "filename" and (not text.startswith(RUN_FOLDER) or _leaves_folder(text)):
        yield Mistake(key, f"must lie in the run's directory: {RUN_FOLDER[0]}NAME")
    elif leaf != "filename" and "${" in text:
        yield Mistake(key, "must be written out, without interpolations")


def _paths(hydra: DictConfig, raw: Any, typed: Sequence[str]) -> Iterator[Mistake]:
    for key in ("job.name", "output_subdir", "sweep.subdir"):
        text = str(_at(raw, key))
        named = " ".join(typed) if "override_dirname" in text else ""
        if _leaves_folder(text) or ".." in named:
            yield Mistake(f"hydra.{key}", "must stay inside the run's directory")
    for key in ("run.dir", "sweep.dir"):
        try:
            folder = str(OmegaConf.select(hydra, key))
        except (OmegaConfBaseException, ValueError):
            continue  # what it is made of is wrong, and is reported by itself
        if (reason := _unwritable(Path(folder))) is not None:
            yield Mistake(f"hydra.{key}", f"{folder[:200]} cannot be a directory: {reason}")


def _unwritable(folder: Path) -> str | None:
    """Return why a folder cannot be made, or None; tried out where it would stand."""
    try:
        existing = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
        if not existing.is_dir():
            return f"{existing} is a file"
        Path(tempfile.mkdtemp(prefix=".convtrain-check-", dir=existing)).rmdir()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _leaves_folder(text: str) -> bool:
    return ".." in PurePath(text).parts or PurePath(text).is_absolute() or "\0" in text


def _at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of every leaf of plain containers."""
    if isinstance(node, dict | list):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for part, value in pairs:
            yield from _leaves(value, f"{key}.{part}")
    else:
        yield key, node
