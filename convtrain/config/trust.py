"""Which classes a ``_target_`` may name.

Every ``_target_`` is code, and two checks precede its call. ``refusal`` looks at the name alone and
imports nothing: all parts of the name but the last must be nested modules of a trusted package.
``load`` then imports the module and looks at the object: it must be a class, defined in that
module, of the kind that its key accepts. Some kinds accept a function that returns such an object.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import FunctionType
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
    function: str = ""  # what a function must do that may take the place of a class, if one may
    functions: tuple[str, ...] = ()  # functions of others that are always trusted


TIMM = "timm.create_model"
MODULE = Kind("torch.nn.Module", "torch.nn.modules.module.Module", ("torch.nn",))
LAYER = MODULE._replace(packages=(), function="takes a tensor")
MODEL = MODULE._replace(
    packages=("torch.nn", "torchvision.models"),
    function="returns one",
    functions=(TIMM,),
)
OPTIMIZER = Kind("torch Optimizer", "torch.optim.optimizer.Optimizer", ("torch.optim",))
SCHEDULER = Kind(
    "torch LRScheduler", "torch.optim.lr_scheduler.LRScheduler", ("torch.optim.lr_scheduler",)
)
LOSS = MODULE._replace(function="takes logits and targets")
DATASET = Kind(
    "torch Dataset",
    "torch.utils.data.dataset.Dataset",
    ("torchvision.datasets",),
    function="returns training, validation and test datasets",
)
TRANSFORM = Kind(
    "torch.nn.Module", "torch.nn.modules.module.Module", ("torchvision.transforms.v2",)
)
METRIC = Kind("torchmetrics Metric", "torchmetrics.metric.Metric", ("torchmetrics",))
LOGGER = Kind(
    "Lightning Logger", "pytorch_lightning.loggers.logger.Logger", ("pytorch_lightning.loggers",)
)
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

PLACES = {
    "model": MODEL,
    "callbacks.custom.*": CALLBACK,
    "optimizer": OPTIMIZER,
    "optimizer.groups.*.optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "loss": LOSS,
    "data": DATASET,
    "data.train": DATASET,
    "data.val": DATASET,
    "data.test": DATASET,
    "metrics.*": METRIC,
    "logger": LOGGER,
    "logger.loggers.*": LOGGER,
}
"""Pattern of the keys above a ``_target_`` to the kind of class that it may name."""

MAY_BE_NULL = ("data", "_target_")  # where data.train names a dataset

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_dotted(name: object) -> bool:
    """Tell whether a name is an import path with a dot."""
    return isinstance(name, str) and "." in name and _DOTTED.fullmatch(name) is not None


def target_mistakes(plain: object, trust: object) -> Iterator[Mistake]:
    """Yield a mistake for every ``_target_`` that is not allowed, at any depth."""
    for path, target in walk(plain):
        if "_target_" not in path or (target is None and path == MAY_BE_NULL):
            continue
        end = path.index("_target_") + 1
        name = target if end == len(path) else None  # a mapping names nothing
        if (reason := refusal(name, trust, *_kinds_at(path[: end - 1]))) is not None:
            yield Mistake(".".join(path[:end]), reason)


def _kinds_at(path: Sequence[str]) -> tuple[Kind, ...]:
    for pattern, kind in PLACES.items():
        parts = pattern.split(".")
        if len(parts) == len(path) and all(map(fnmatchcase, path, parts)):
            return (kind,)
    return (MODULE, CALLBACK)  # data for an object, which gets it as it is


def refusal(target: object, trust: object, *kinds: Kind) -> str | None:
    """Return why a name is refused and what to do, or None; imports nothing."""
    if not isinstance(target, str) or not is_dotted(target):
        return "must be the import path of a class, such as mypackage.MyNet"
    allowed = [package for kind in kinds for package in kind.packages]
    functions = [function for kind in kinds for function in kind.functions]
    root = target.split(".", maxsplit=1)[0]
    if target not in functions and not any(target.startswith(f"{name}.") for name in allowed):
        takes_trust = any(kind.takes_trust for kind in kinds)
        reason = untrustworthy(root)
        if reason is None and not takes_trust:
            reason = f"a {kinds[0].words} must be a plugin that Hydra finds"
        if reason is not None:
            if kinds == (LAYER,):
                name = target.rpartition(".")[2]
                return f"not allowed: {reason}; layers of torch.nn have no path, as {name}"
            names = [*functions, *(f"{package}.*" for package in allowed)]
            return f"not allowed: {reason}; allowed are {', '.join(names)}"
        trusted = [name for name in _listed(trust) if untrustworthy(name) is None]
        if not any(target.startswith(f"{name}.") for name in trusted):
            return f"not a trusted package; add 'trust=[{root}]'"
    module = target.rpartition(".")[0]
    if (missing := _missing_module(module)) is not None and missing != root:
        return f"there is no module {missing}; name MODULE.CLASS, the module that defines the class"
    return None


def short_name(target: str, arguments: Mapping[str, object]) -> str:
    """Return the name of a model: its class, its builder, or the model that timm makes."""
    made = arguments.get("model_name") if target == TIMM else None
    return target.rpartition(".")[2] if made is None else str(made)


def load(key: str, target: str, trust: object, kind: Kind) -> Callable[..., object]:
    """Import what a key names: a class, or a function if the kind accepts one.

    Raises:
        ConfigError: the name or the kind of the object is not allowed, or its import fails.
    """
    if (reason := refusal(target, trust, kind)) is not None:
        raise ConfigError(f"{key}={target}: {reason}")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # a user's own code may raise anything
        expected = isinstance(error, ImportError | AttributeError | ValueError)
        reason = str(error) if expected else error_line(error)
        if target in kind.functions and isinstance(error, ModuleNotFoundError):
            reason += f"; pip install {module}"
        elif isinstance(error, ModuleNotFoundError) and error.name == target.partition(".")[0]:
            reason += "; type the command in the folder that holds it, or install it"
        raise ConfigError(f"{key}={target}: cannot be imported: {reason}") from error
    base_module, _, base = kind.base.rpartition(".")
    allowed = getattr(import_module(base_module), base)
    is_class = isinstance(found, type) and issubclass(found, allowed)
    is_function = isinstance(found, FunctionType) and _takes_function(kind, target, found)
    if not is_class and not is_function:
        function = f", or a function that {kind.function}" * bool(kind.function)
        raise ConfigError(f"{key}={target}: expected a class derived from {kind.words}{function}")
    assert isinstance(found, type | FunctionType)
    if target in kind.functions:
        return found
    if not _is_defined_there(found, module, name):
        defined = f"{found.__module__}.{found.__qualname__}"
        raise ConfigError(f"{key}={target}: is defined as {defined}; name it there")
    return found


def _takes_function(kind: Kind, target: str, found: FunctionType) -> bool:
    """Accept functions of a user's own packages; those of libraries must be listed one by one."""
    own = not any(target.startswith(f"{package}.") for package in kind.packages)
    return bool(kind.function) and (own or target in kind.functions or _is_builder(found))


def _is_builder(found: FunctionType) -> bool:
    """Tell whether torchvision lists a function as the builder of a classification model."""
    if (models := sys.modules.get("torchvision.models")) is None:
        return False
    name = found.__name__
    return name in models.list_models(module=models) and models.get_model_builder(name) is found


def _is_defined_there(found: type | FunctionType, module: str, name: str) -> bool:
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
