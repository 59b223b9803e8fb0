"""Which classes a ``_target_`` may name.

Every ``_target_`` is code, and two checks precede its call. ``refusal`` looks at the name alone and
imports nothing: all parts of the name but the last must be nested modules of a trusted package.
``load`` then imports the module and looks at the object: it must be a class, defined in that
module, of the kind that its key accepts.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import NamedTuple

from convtrain.config.dotted import walk
from convtrain.config.mistakes import Mistake
from convtrain.errors import ConfigError, error_line


class Kind(NamedTuple):
    """A kind of class that a ``_target_`` may name."""

    words: str  # its name in an error
    base: str  # dotted name of its base class
    packages: tuple[str, ...]  # always trusted for this kind
    takes_trust: bool = True  # whether packages under ``trust`` may hold such classes


MODULE = Kind("torch.nn.Module", "torch.nn.modules.module.Module", ("torch.nn",))
CALLBACK = Kind(
    "Lightning Callback",
    "pytorch_lightning.callbacks.callback.Callback",
    ("pytorch_lightning.callbacks",),
)
HYDRA_CALLBACK = Kind(
    "Hydra Callback", "hydra.experimental.callback.Callback", ("convtrain.sweeps.callback",)
)
PLUGINS = ("hydra._internal.core_plugins", "hydra_plugins")  # Hydra accepts no others
LAUNCHER = Kind("Hydra Launcher", "hydra.plugins.launcher.Launcher", PLUGINS, takes_trust=False)
SWEEPER = Kind("Hydra Sweeper", "hydra.plugins.sweeper.Sweeper", PLUGINS, takes_trust=False)
SAMPLER = Kind("Optuna BaseSampler", "optuna.samplers.BaseSampler", ("optuna.samplers",))

LIBRARIES = frozenset(
    (
        "torch", "torchvision", "pytorch_lightning", "lightning", "lightning_fabric", "hydra",
        "hydra_plugins", "omegaconf", "yaml", "pydantic", "numpy", "scipy", "sklearn", "joblib",
        "PIL", "matplotlib", "tensorboard", "rich", "pyarrow", "safetensors", "fsspec", "pip",
        "setuptools", "pkg_resources", "antlr4", "convtrain", "torchmetrics", "functorch",
        "torchgen", "triton", "optuna", "submitit", "cloudpickle", "sqlalchemy", "alembic",
        "colorlog", "cffi", "sympy", "networkx", "jinja2", "filelock", "pytest", "IPython", "ray",
    )
)  # fmt: skip
"""Common libraries that ``trust`` may not name, because much of their code runs its arguments."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def target_mistakes(plain: object, trust: object) -> Iterator[Mistake]:
    """Yield a mistake for every ``_target_`` that is not allowed, at any depth."""
    for path, target in walk(plain):
        if "_target_" not in path:
            continue
        end = path.index("_target_") + 1
        kinds: tuple[Kind, ...] = (MODULE, CALLBACK)  # data for an object that convtrain passes on
        if path[:2] == ("callbacks", "custom") and end == 4:
            kinds = (CALLBACK,)
        elif path[:end] == ("model", "_target_"):
            kinds = (MODULE,)
        name = target if end == len(path) else None  # a mapping names nothing
        if (reason := refusal(name, trust, *kinds)) is not None:
            yield Mistake(".".join(path[:end]), reason)


def refusal(target: object, trust: object, *kinds: Kind) -> str | None:
    """Return why a name is refused and what to do, or None; imports nothing."""
    if not isinstance(target, str) or "." not in target or not _DOTTED.fullmatch(target):
        return "must be the import path of a class, such as mypackage.MyNet"
    allowed = [package for kind in kinds for package in kind.packages]
    root = target.split(".", maxsplit=1)[0]
    if not any(target.startswith(f"{package}.") for package in allowed):
        takes_trust = any(kind.takes_trust for kind in kinds)
        reason = untrustworthy(root)
        if reason is None and not takes_trust:
            reason = f"a {kinds[0].words} must be a plugin that Hydra finds"
        if reason is not None:
            return f"not allowed: {reason}; allowed are {', '.join(f'{a}.*' for a in allowed)}"
        trusted = [name for name in _listed(trust) if untrustworthy(name) is None]
        if not any(target.startswith(f"{name}.") for name in trusted):
            return f"not a trusted package; add 'trust=[{root}]'"
    module = target.rpartition(".")[0]
    if (missing := _missing_module(module)) is not None and missing != root:
        return f"there is no module {missing}; name MODULE.CLASS, the module that defines the class"
    return None


def load(key: str, target: str, trust: object, kind: Kind) -> type:
    """Import the class that a key names; raise ConfigError unless its name and kind are allowed."""
    if (reason := refusal(target, trust, kind)) is not None:
        raise ConfigError(f"{key}={target}: {reason}")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # a user's own code may raise anything
        expected = isinstance(error, ImportError | AttributeError | ValueError)
        reason = str(error) if expected else error_line(error)
        raise ConfigError(f"{key}={target}: cannot be imported: {reason}") from error
    base_module, _, base = kind.base.rpartition(".")
    allowed = getattr(import_module(base_module), base)
    if not isinstance(found, type) or not issubclass(found, allowed):
        raise ConfigError(f"{key}={target}: expected a class derived from {kind.words}")
    if not _is_defined_there(found, module, name):
        defined = f"{found.__module__}.{found.__qualname__}"
        raise ConfigError(f"{key}={target}: is defined as {defined}; name it there")
    return found


def _is_defined_there(found: type, module: str, name: str) -> bool:
    """Allow re-exports by a parent package: torch.nn.Linear is torch.nn.modules.linear.Linear."""
    return found.__qualname__ == name and f"{found.__module__}.".startswith(f"{module}.")


def _missing_module(name: str) -> str | None:
    """Return the first part of a dotted name that is no nested module, or None; imports nothing.

    ``torch.nn.modules.module.torch`` is an attribute of a module, not a nested module.
    """
    parts, path = name.split("."), None
    for end in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:end]), path)
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            return ".".join(parts[: end if spec is None else end + 1])
        path = list(spec.submodule_search_locations or ())
    return None


def _find_spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    """Find a module; ``importlib.util.find_spec`` would import its parent packages."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and (spec := find(name, path)) is not None:
            return spec
    return None


def untrustworthy(package: object) -> str | None:
    """Return why ``trust`` may not name a package, or None."""
    if not isinstance(package, str) or not _DOTTED.fullmatch(package):
        return "must be the name of a package, such as mypackage"
    root = package.split(".", maxsplit=1)[0]
    if root in sys.stdlib_module_names:
        return f"{root} belongs to Python, and can do anything"
    if root in LIBRARIES:
        return f"{root} is a library that runs or loads what it is given"
    return None


def trust_mistakes(trust: object) -> Iterator[Mistake]:
    """Yield a mistake for every package that ``trust`` may not name."""
    for index, package in enumerate(_listed(trust)):
        if (reason := untrustworthy(package)) is not None:
            yield Mistake(f"trust.{index}", f"{reason}; name a package of your own")


def _listed(trust: object) -> Sequence[object]:
    return trust if isinstance(trust, list | tuple) else ()
