"""``_target_`` names code. What may be named, decided by its name alone, before any import.

Three things are allowed: torch's own modules, Lightning's own callbacks, and what lies in a package
that the configuration names under ``trust``. Whoever makes the object checks besides that it is a
class of the kind that is wanted, so that no function can be called.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from convtrain.config.messages import Mistake

ALLOWED = ("torch.nn.", "pytorch_lightning.callbacks.")

LIBRARIES = frozenset(
    (
        "torch", "torchvision", "pytorch_lightning", "lightning", "lightning_fabric", "hydra",
        "hydra_plugins", "omegaconf", "yaml", "pydantic", "numpy", "scipy", "sklearn", "joblib",
        "PIL", "matplotlib", "tensorboard", "rich", "pyarrow", "safetensors", "fsspec", "pip",
        "setuptools", "pkg_resources", "antlr4",
    )
)  # fmt: skip
"""What convtrain stands on: much of it runs or loads whatever it is given."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def target_mistakes(plain: Any, trust: Any) -> Iterator[Mistake]:
    """Yield a mistake for every ``_target_`` that is not allowed, at any depth and in lists.

    Args:
        plain: plain containers, every interpolation resolved.
        trust: what the configuration says under ``trust``, right or wrong.
    """
    trusted = trusted_packages(trust)
    for key, target in _targets(plain, ""):
        if (reason := refusal(target, trusted)) is not None:
            yield Mistake(key, reason)


def trusted_packages(trust: Any) -> list[str]:
    """Return those of the packages under ``trust`` that can be trusted."""
    return [name for name in trust if untrustworthy(name) is None] if _is_list(trust) else []


def refusal(target: Any, trust: Sequence[str], also: tuple[str, ...] = ()) -> str | None:
    """Return why a target is refused and what to do about it, or None where it is allowed.

    Args:
        target: what stands behind ``_target_``.
        trust: packages of the user's own.
        also: prefixes that are allowed where the target stands, besides ``ALLOWED``.
    """
    if not isinstance(target, str) or "." not in target or not _DOTTED.fullmatch(target):
        return "must be the import path of a class, such as mypackage.MyNet"
    if target.startswith((*ALLOWED, *also)):
        return None
    package = target.split(".", maxsplit=1)[0]
    if any(target.startswith(f"{name}.") for name in trust if untrustworthy(name) is None):
        return None
    if (reason := untrustworthy(package)) is not None:
        return f"not allowed: {reason}; allowed are {', '.join(f'{a}*' for a in ALLOWED)}"
    return f"not a trusted package; add 'trust=[{package}]'"


def untrustworthy(package: Any) -> str | None:
    """Return why a package cannot be trusted, whoever asks for it, or None."""
    if not isinstance(package, str) or not _DOTTED.fullmatch(package):
        return "must be the name of a package, such as mypackage"
    root = package.split(".", maxsplit=1)[0]
    if root in sys.stdlib_module_names:
        return f"{root} belongs to Python, and can do anything"
    if root in LIBRARIES:
        return f"{root} is a library that runs or loads what it is given"
    return None


def trust_mistakes(trust: Any) -> Iterator[Mistake]:
    """Yield a mistake for every package under ``trust`` that cannot be trusted."""
    for index, package in enumerate(trust if _is_list(trust) else []):
        if (reason := untrustworthy(package)) is not None:
            yield Mistake(f"trust.{index}", f"{reason}; name a package of your own")


def _targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield key and value of every ``_target_``."""
    pairs: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(node, dict):
        pairs = iter(node.items())
    elif isinstance(node, list):
        pairs = enumerate(node)
    for part, value in pairs:
        inner = f"{key}.{part}" if key else str(part)
        if part == "_target_":
            yield inner, value
        yield from _targets(value, inner)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
