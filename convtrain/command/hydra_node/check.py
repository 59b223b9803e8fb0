"""Checks of Hydra's own node: the code that it names, its paths, and values that cannot work.

The checks read resolved values, because an interpolation may expand to a word, a class or a whole
node. Markers replace what a job fills in later: its number, its id and its directory.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.hydra_node.logs import OUTPUT_DIR, logging_leaf_mistakes
from convtrain.command.hydra_node.paths import path_mistakes
from convtrain.command.resolve import Plain, to_plain
from convtrain.config.dotted import value_at, walk
from convtrain.config.mistakes import MISSING, Mistake
from convtrain.config.trust import HYDRA_CALLBACK, LAUNCHER, SAMPLER, SWEEPER, load, refusal
from convtrain.errors import ConfigError, did_you_mean
from convtrain.program import install

LATE = {"runtime.output_dir": OUTPUT_DIR, "job.id": "<the job's id>", "job.num": 1_907_405_211}
"""Markers of what a job fills in at its start. A value may contain one, but not compute with it."""

RECORDS = (
    "hydra.overrides.", "hydra.runtime.", "hydra.help.", "hydra.hydra_help.",
    "hydra.job.override_dirname",
)  # fmt: skip
"""Parts of the node that Hydra writes, or only prints."""

VARIABLES = frozenset(
    (
        "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING",
        "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
        "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_ALGO", "NCCL_PROTO", "NCCL_BUFFSIZE",
        "NCCL_NTHREADS", "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_P2P_DISABLE",
        "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE", "NCCL_NVLS_ENABLE", "NCCL_CUMEM_ENABLE",
        "NCCL_SOCKET_IFNAME", "NCCL_SOCKET_FAMILY", "NCCL_IB_DISABLE", "NCCL_IB_HCA",
        "NCCL_IB_GID_INDEX", "NCCL_IB_TIMEOUT", "NCCL_IB_RETRY_CNT", "NCCL_NET_GDR_LEVEL",
        "NCCL_CROSS_NIC", "GLOO_SOCKET_IFNAME", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "TORCH_NCCL_BLOCKING_WAIT", "OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_PLACES",
        "OMP_PROC_BIND", "OMP_SCHEDULE", "OMP_STACKSIZE", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY",
        "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "KMP_AFFINITY", "KMP_BLOCKTIME",
        "OPENBLAS_NUM_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_ENABLE_MPS_FALLBACK",
    )
)  # fmt: skip
"""What ``hydra.job.env_set`` may set. Prefixes would be unsafe: CUDA_INJECTION64_PATH,
NCCL_NET_PLUGIN, OMP_TOOL_LIBRARIES and PYTORCH_KERNEL_CACHE_PATH name code to load, NCCL_DEBUG_FILE
and CUBLAS_LOGDEST_DBG name files to write."""


def check_hydra(
    hydra: DictConfig, trust: object, imports: bool = False
) -> tuple[Plain, list[Mistake], list[Mistake]]:
    """Resolve Hydra's node and check it.

    Args:
        trust: packages whose classes may be named, with any that may not be trusted.
        imports: whether trusted packages of the user's own, and Optuna, are imported to check their
            classes. Hydra's plugins and convtrain's callback always are.

    Returns:
        The node in plain containers, with the markers of ``LATE``; the mistakes in it; and the
        unresolved values, which may follow from a mistake elsewhere.

    Raises:
        ConfigError: its interpolations unfold without end.
    """
    set_by_user = not OmegaConf.is_missing(hydra.runtime, "output_dir")
    with _late_values(hydra):
        plain, unresolved = to_plain(hydra)
    mistakes = [*path_mistakes(plain), *_leaf_mistakes(plain, trust, imports), *_mistakes(plain)]
    if set_by_user:
        text = "is Hydra's to fill in; set hydra.run.dir"
        mistakes.append(Mistake("hydra.runtime.output_dir", text))
    named = [Mistake(f"hydra.{mistake.key}", mistake.text) for mistake in unresolved]
    return plain, mistakes, [mistake for mistake in named if _is_needed(mistake)]


def trust_of(config: DictConfig) -> object:
    """Return the value of ``trust`` in plain containers."""
    try:
        trust = config.get("trust")
        return OmegaConf.to_container(trust) if OmegaConf.is_list(trust) else []
    except OmegaConfBaseException:
        return []  # reported by itself


def with_late_values(value: object) -> object:
    """Return a value with an interpolation in place of each marker."""
    if isinstance(value, dict):
        return {key: with_late_values(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_late_values(inner) for inner in value]
    for key, marker in LATE.items():
        if value == marker:
            return f"${{hydra.{key}}}"
        if isinstance(value, str):
            value = value.replace(str(marker), f"${{hydra.{key}}}")
    return value


@contextmanager
def _late_values(hydra: DictConfig) -> Iterator[None]:
    paths = [(key.split("."), value) for key, value in LATE.items()]
    absent = [
        (hydra[section], name, value)
        for (section, name), value in paths
        if OmegaConf.is_missing(hydra[section], name)
    ]
    with open_dict(hydra):
        for node, name, value in absent:
            node[name] = value
        try:
            yield
        finally:
            for node, name, _ in absent:
                node[name] = "???"


def _is_needed(mistake: Mistake) -> bool:
    made = mistake.key.startswith(("hydra.callbacks.", "hydra.launcher.", "hydra.sweeper."))
    return not mistake.key.startswith(RECORDS) and (mistake.text != MISSING or made)


def _leaf_mistakes(hydra: Plain, trust: object, imports: bool) -> Iterator[Mistake]:
    for path, value in walk(hydra, ("hydra",)):
        key = ".".join(path)
        if key.startswith(RECORDS):
            continue
        if path[-1] == "_target_":
            if (reason := _target_refusal(path, value, trust, imports)) is not None:
                yield Mistake(key, reason)
        elif path[-1] == "_partial_" and path[2] != "sampler":
            yield Mistake(key, "leave it out: the object itself is needed here")
        elif path[1] in ("job_logging", "hydra_logging"):
            yield from (Mistake(key, text) for text in logging_leaf_mistakes(hydra, path, value))
        elif isinstance(value, str) and "${" in value:
            yield Mistake(key, "must not hold the text of an interpolation")


def _target_refusal(
    path: tuple[str, ...], value: object, trust: object, imports: bool
) -> str | None:
    match path[1:]:
        case ("launcher", _):
            kind = LAUNCHER
        case ("sweeper", _):
            kind = SWEEPER
        case ("sweeper", "sampler", *_):
            kind = SAMPLER
        case ("callbacks", _, _):
            kind = HYDRA_CALLBACK
        case _:
            return "not allowed: nothing is made of a class that is named here"
    if (reason := refusal(value, trust, kind)) is not None:
        missing = reason.startswith("there is no module hydra_plugins.")
        return f"is not installed; {install('sweep')}" if missing else reason
    target = str(value)
    try:
        if imports or (kind is not SAMPLER and target.startswith(kind.packages)):
            load(path[-1], target, trust, kind)
    except ConfigError as error:
        return str(error).removeprefix(f"{path[-1]}={target}: ")
    return None


def _mistakes(hydra: Plain) -> Iterator[Mistake]:
    callbacks = hydra.get("callbacks") or {}
    for name, callback in callbacks.items() if isinstance(callbacks, dict) else [("", callbacks)]:
        if not isinstance(callback, dict) or "_target_" not in callback:
            yield Mistake(f"hydra.callbacks.{name}".rstrip("."), "needs a _target_")
    if value_at(hydra, "sweeper.custom_search_space", None) is not None:
        yield Mistake(
            "hydra.sweeper.custom_search_space",
            "not allowed: it names a function that would be called; write the ranges as overrides",
        )
    for section in ("params", "search_space"):
        swept = value_at(hydra, f"sweeper.{section}", None)
        for key in swept if isinstance(swept, dict) else ():
            if re.match(r"hydra($|[./@])", str(key).lstrip("+~ ")):
                yield Mistake(f"hydra.sweeper.{section}.{key}", "Hydra's own keys cannot be swept")
    launcher = hydra.get("launcher")
    if not isinstance(launcher, dict):
        yield Mistake("hydra.launcher", "must be chosen by hydra/launcher=NAME")
    elif launcher.keys() - {"_target_"}:  # Hydra's basic launcher has no other
        from convtrain.command.hydra_node.launcher import launcher_mistakes

        yield from launcher_mistakes(launcher)
    variables = value_at(hydra, "job.env_set", None)
    for name, value in variables.items() if isinstance(variables, dict) else ():
        if name not in VARIABLES and os.environ.get(name) != value:  # as hydra.job.env_copy copies
            near = did_you_mean(name, VARIABLES) or "; set it in the shell"
            text = f"not among the variables that may be set{near}"
            yield Mistake(f"hydra.job.env_set.{name}", text)
    if not isinstance(hydra.get("verbose"), bool | str | list):
        yield Mistake("hydra.verbose", "must be true, false, or the names of loggers")
