"""What Hydra's sweepers cannot carry out, told before the first job; how many jobs they make."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.messages import brief
from convtrain.config.schema import Config
from convtrain.text import plain_as_omegaconf

OPTUNA = "hydra_plugins.hydra_optuna_sweeper."
COUNTS = {False: ("max_batch_size",), True: ("n_trials", "n_jobs")}
"""Keys of a sweeper that count something, by whether it is Optuna's."""

DIRECTIONS = ("minimize", "maximize")
JOB_DIR = "${job_dir:"  # the resolver of the usual name, which follows from the values
JOB_NUMBER = re.compile(r"\$\{hydra[.:]job\.num\}")


def is_search(hydra: DictConfig) -> bool:
    return str(hydra.sweeper.get("_target_")).startswith(OPTUNA)


def number_of_jobs(hydra: DictConfig, overrides: Sequence[Override]) -> int | None:
    """Return how many jobs a sweep has, or None where its sweeper is not known."""
    swept = [override for override in overrides if override.is_sweep_override()]
    if is_search(hydra):
        trials = int(hydra.sweeper.n_trials)
        return min(trials, _grid_size(swept)) if _is_grid(hydra) else trials
    if not str(hydra.sweeper.get("_target_")).endswith("BasicSweeper"):
        return None
    return math.prod(len(list(override.sweep_string_iterator())) for override in swept)


def sweeper_mistakes(
    configs: Sequence[Config], hydra: DictConfig, overrides: Sequence[Override]
) -> Iterator[str]:
    """Yield a line for each thing that the sweeper, or the table at the end, could not deal with.

    Args:
        configs: one for each value that is swept.
        hydra: Hydra's own node.
        overrides: what was typed, parsed.
    """
    swept = [override for override in overrides if override.is_sweep_override()]
    times = Counter((override.key_or_group, override.package) for override in overrides)
    for override in swept:
        if times[override.key_or_group, override.package] > 1:
            yield f"{_typed(override)}: {override.key_or_group} is given twice; type it once"
    yield from _directory_mistakes(configs, hydra)
    for key in COUNTS[is_search(hydra)]:
        if (value := hydra.sweeper.get(key)) is not None and value < 1:
            yield f"hydra.sweeper.{key}={value}: must be at least 1"
    if any(config.trainer.limit_val_batches == 0 for config in configs):
        yield (
            f"sweep.metric={configs[0].sweep.metric}: is not measured with "
            f"trainer.limit_val_batches=0; validate"
        )
    yield from _search_mistakes(hydra, swept) if is_search(hydra) else _list_mistakes(hydra, swept)


def _directory_mistakes(configs: Sequence[Config], hydra: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the names of jobs' directories, which a sweep's table reads."""
    subdir = OmegaConf.to_container(hydra.sweep, resolve=False)["subdir"]  # type: ignore[index,call-overload]
    if JOB_DIR in str(subdir):
        return
    if not JOB_NUMBER.search(str(subdir)):
        better = "'${hydra.job.num}_" + str(subdir).lstrip("./") + "'"
        yield (
            f"hydra.sweep.subdir={subdir}: two jobs could get one directory; "
            f"type hydra.sweep.subdir={better}"
        )
    elif not all(_is_name(name) for name in _directories(configs, str(subdir))):
        yield f"hydra.sweep.subdir={subdir}: must be one folder's name, which no dot begins"


def _directories(configs: Sequence[Config], subdir: str) -> Iterator[str]:
    """Yield the names that the values lead to, as far as they follow from the configuration."""
    text = JOB_NUMBER.sub("0", subdir)
    yield re.sub(r"\$\{[^}]*\}", "_", text)
    for config in configs if "${" in text else ():
        plain = plain_as_omegaconf(config.model_dump(by_alias=True))
        with suppress(OmegaConfBaseException, ValueError):  # it is made of something else
            yield str(OmegaConf.create({**plain, "subdir": text}).subdir)


def _is_name(text: str) -> bool:
    return text == PurePath(text).name and not text.startswith(".")


def _list_mistakes(hydra: DictConfig, swept: Sequence[Override]) -> Iterator[str]:
    sweeper = hydra.runtime.choices.get("hydra/sweeper")
    for override in swept:
        if override.is_interval_sweep():
            yield (
                f"{_typed(override)}: hydra/sweeper={sweeper} tries listed values only; list "
                f"them, or type hydra/sweeper=optuna"
            )


def _search_mistakes(hydra: DictConfig, swept: Sequence[Override]) -> Iterator[str]:
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
    if "CmaEs" in str(sweeper.get("sampler", {}).get("_target_")) and find_spec("cmaes") is None:
        yield "hydra/sweeper/sampler=cmaes: is not installed; pip install cmaes"
    if not swept:
        yield "hydra/sweeper=optuna: nothing to search; type KEY=interval(LOW,HIGH) or KEY=A,B"
    for override in swept:
        value = override.value()
        if not isinstance(value, IntervalSweep):
            continue
        low, high = value.start, value.end
        if low is None or high is None or low >= high:
            yield f"{_typed(override)}: must begin below its end, {brief(high)}"
        elif "log" in value.tags and low <= 0:
            yield f"{_typed(override)}: a logarithmic interval must begin above 0"
        elif _is_grid(hydra):
            yield f"{_typed(override)}: hydra/sweeper/sampler=grid tries listed values; list them"


def _is_grid(hydra: DictConfig) -> bool:
    return str(hydra.sweeper.get("sampler", {}).get("_target_")).endswith("GridSampler")


def _grid_size(swept: Sequence[Override]) -> int:
    """Return the number of combinations that Optuna's grid has, which counts ranges by itself."""

    def count(override: Override) -> int:
        value: Any = override.value()
        if override.is_range_sweep() and not value.shuffle:
            return int((value.stop - value.start) // value.step)
        return len(list(override.sweep_string_iterator()))

    return math.prod(count(override) for override in swept if not override.is_interval_sweep())


def _typed(override: Override) -> str:
    return brief(override.input_line)
