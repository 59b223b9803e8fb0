"""Checks for what a sweeper or a launcher cannot do, made before the first job."""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.overrides import shown
from convtrain.command.sweep import LOCAL_GPUS, choice_of, gpus_in_turn, is_grid, is_search
from convtrain.config.mistakes import brief
from convtrain.config.schema import Config
from convtrain.program import install
from convtrain.text import plain_as_omegaconf

COUNTS = {False: ("max_batch_size",), True: ("n_trials", "n_jobs")}
"""Keys of a sweeper that must be at least 1, by whether it is Optuna's."""

DIRECTIONS = ("minimize", "maximize")
JOB_DIR = "${job_dir:"  # the resolver of the default directory, which follows from the values
JOB_NUMBER = re.compile(r"\$\{hydra[.:]job\.num\}")
ONE_DEVICE = ("joblib", LOCAL_GPUS)  # launchers whose jobs cannot start processes


def sweep_mistakes(
    configs: Sequence[Config], hydra: DictConfig, overrides: list[Override]
) -> Iterator[str]:
    """Yield a line for each mistake that sweeper, launcher or final table would fail at."""
    if (resumed := configs[0].resume) is not None:
        yield (
            f"resume={resumed}: a sweep trains in directories of its own; leave -m out, or leave "
            f"resume out and type the sweep again, which resumes its jobs"
        )
    for group in ("launcher", "sweeper"):
        if not _is_installed(str(hydra[group].get("_target_")).rpartition(".")[0]):
            choice = choice_of(hydra, group)
            yield f"hydra/{group}={choice}: is not installed; {install('sweep')}"
    if gpus_in_turn(configs, hydra) == []:
        yield (
            f"sweep.gpus={configs[0].sweep.gpus or 'auto'}: no GPU is found here by nvidia-smi; "
            f"list them: sweep.gpus=[0,1], or type hydra/launcher=joblib"
        )
    yield from _devices(configs, hydra)
    swept = [override for override in overrides if override.is_sweep_override()]
    times = Counter((override.key_or_group, override.package) for override in overrides)
    for override in swept:
        if times[override.key_or_group, override.package] > 1:
            yield f"{shown(override)}: {override.key_or_group} is given twice; type it once"
    yield from _directories(configs, hydra)
    for key in COUNTS[is_search(hydra)]:
        if (value := hydra.sweeper.get(key)) is not None and value < 1:
            yield f"hydra.sweeper.{key}={value}: must be at least 1"
    if any(config.trainer.limit_val_batches == 0 for config in configs):
        yield (
            f"sweep.metric={configs[0].sweep.metric}: is not measured with "
            f"trainer.limit_val_batches=0; validate"
        )
    yield from _search(hydra, swept) if is_search(hydra) else _list(hydra, swept)


def _devices(configs: Sequence[Config], hydra: DictConfig) -> Iterator[str]:
    launcher = choice_of(hydra, "launcher")
    several = next((c.trainer.devices for c in configs if c.trainer.devices != 1), None)
    if several is not None and launcher in ONE_DEVICE:
        yield (
            f"trainer.devices={several}: hydra/launcher={launcher} gives each job one "
            f"device; leave it out, or type hydra/launcher=submitit_local"
        )
    elif several is not None and configs[0].sweep.gpus is not None:
        yield (
            f"trainer.devices={several}: sweep.gpus gives each job one GPU; leave one of "
            f"the two out"
        )
    if nodes := next((n for c in configs if (n := c.trainer.num_nodes) > 1), None):
        yield f"trainer.num_nodes={nodes}: a job of a sweep has one machine; leave it out"
    for key in ("nodes", "tasks_per_node"):
        if (asked := hydra.launcher.get(key)) not in (None, 1):
            yield (
                f"hydra.launcher.{key}={asked}: a job of a sweep has one machine and one task, "
                f"which starts its own processes; set trainer.devices, or leave -m out, with srun"
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _directories(configs: Sequence[Config], hydra: DictConfig) -> Iterator[str]:
    key = "hydra.sweep.subdir"
    raw = OmegaConf.to_container(hydra.sweep, resolve=False)
    subdir = str(raw["subdir"])  # type: ignore[index, call-overload]
    if JOB_DIR in subdir:
        return
    if not JOB_NUMBER.search(subdir):
        better = "'${hydra.job.num}_" + subdir.lstrip("./") + "'"
        yield f"{key}={subdir}: two jobs could get one directory; type {key}={better}"
    elif any(n != PurePath(n).name or n.startswith(".") for n in _names(configs, subdir)):
        yield f"{key}={subdir}: must be one folder's name, which no dot begins"


def _names(configs: Sequence[Config], subdir: str) -> Iterator[str]:
    text = JOB_NUMBER.sub("0", subdir)
    yield re.sub(r"\$\{[^}]*\}", "_", text)
    for config in configs if "${" in text else ():
        plain = plain_as_omegaconf(config.model_dump(by_alias=True))
        with suppress(OmegaConfBaseException, ValueError):  # it depends on something else
            yield str(OmegaConf.create({**plain, "subdir": text}).subdir)


def _list(hydra: DictConfig, swept: Sequence[Override]) -> Iterator[str]:
    for override in swept:
        if override.is_interval_sweep():
            yield (
                f"{shown(override)}: hydra/sweeper={choice_of(hydra, 'sweeper')} tries listed "
                f"values only; list them, or type hydra/sweeper=optuna"
            )


def _search(hydra: DictConfig, swept: Sequence[Override]) -> Iterator[str]:
    sweeper = hydra.sweeper
    if sweeper.get("sampler", {}).get("seed", 0) is None:
        yield "hydra.sweeper.sampler.seed=null: a search without a seed cannot be resumed; give one"
    if sweeper.get("storage") is not None:
        yield (
            "hydra.sweeper.storage: a stored study knows nothing of the runs; leave it null, the "
            "same command resumes the search from the runs themselves"
        )
    if sweeper.get("search_space") is not None:
        yield (
            "hydra.sweeper.search_space: is not checked; type the search space as overrides, "
            "such as optimizer.lr=interval(0.01,0.1)"
        )
    if not 0 <= (rate := sweeper.get("max_failure_rate", 1)) <= 1:
        yield f"hydra.sweeper.max_failure_rate={rate}: must be between 0 and 1"
    asked = sweeper.direction
    direction = list(asked) if OmegaConf.is_list(asked) else getattr(asked, "name", asked)
    if direction not in DIRECTIONS:
        yield (
            f"hydra.sweeper.direction={brief(direction)}: must be {' or '.join(DIRECTIONS)}; "
            f"a job has one sweep.metric"
        )
    is_cmaes = "CmaEs" in str(sweeper.get("sampler", {}).get("_target_"))
    if is_cmaes and not _is_installed("cmaes"):
        yield "hydra/sweeper/sampler=cmaes: is not installed; pip install cmaes"
    if not swept:
        yield "hydra/sweeper=optuna: nothing to search; type KEY=interval(LOW,HIGH) or KEY=A,B"
    for override in swept:
        if override.key_or_group == "data.fold":
            yield (
                f"{shown(override)}: a search would choose the easiest fold; type one value, or "
                f"leave hydra/sweeper out to train every fold"
            )
        value = override.value()
        if not isinstance(value, IntervalSweep):
            continue
        low, high = value.start, value.end
        if low is None or high is None or low >= high:
            yield f"{shown(override)}: must begin below its end, {brief(high)}"
        elif "log" in value.tags and low <= 0:
            yield f"{shown(override)}: a logarithmic interval must begin above 0"
        elif is_grid(hydra):
            yield f"{shown(override)}: hydra/sweeper/sampler=grid tries listed values; list them"
