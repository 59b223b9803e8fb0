"""Loggers that the configuration names by ``_target_``: Lightning's, and those of a user's own.

They exist on rank 0 alone. A resumed run attaches to what it logged before, where the class of the
logger has an argument for that.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from pytorch_lightning.loggers import Logger

from convtrain.config.groups.logger import LoggerTarget
from convtrain.errors import ConfigError, ConvtrainError, error_line
from convtrain.process.ranks import rank_info

log = logging.getLogger("convtrain")

CONTINUED_BY = ("run_id", "id", "experiment_key")
"""Arguments that take the ``version`` of an earlier logger, to continue what it logged."""

ENDED_BY = {"WandbLogger": "finish", "CometLogger": "end"}
"""Class to the method of its experiment that ends it; another run of this process would join it."""

Versions = Mapping[str, str]
Custom = Mapping[str, Logger]
"""The loggers by the override that named each."""


@runtime_checkable
class Stateful(Protocol):
    """A logger whose state is kept in checkpoints."""

    def state_dict(self) -> dict[str, object]: ...
    def load_state_dict(self, state: dict[str, object]) -> None: ...


def make_custom_loggers(
    targets: Sequence[LoggerTarget], run_dir: Path, versions: Versions | None = None
) -> Custom:
    """Make the loggers on rank 0; ConfigError if one fails.

    Each gets ``save_dir``, the run's directory, if it has such an argument that was not typed.

    Args:
        versions: the versions of the loggers of the run that is resumed.
    """
    if rank_info().rank != 0:
        return {}
    made: dict[str, Logger] = {}
    for target in targets:
        run_dir.mkdir(parents=True, exist_ok=True)  # some write when they are made
        before = dict.fromkeys(CONTINUED_BY, (versions or {}).get(target.where))
        known = {name: version for name, version in before.items() if version is not None}
        offered = target.offered(save_dir=str(run_dir), **known)
        made[target.where] = target.build(**offered)
    return made


def start(loggers: Custom, hyperparameters: Mapping[str, object], continued: Versions) -> Versions:
    """Log the hyperparameters, unless a logger continues; return the loggers' versions.

    Raises:
        ConfigError: a logger cannot start, such as one that does not reach its server.
    """
    versions: dict[str, str] = {}
    for where, logger in loggers.items():
        with _one_line(where):
            if where not in continued:
                logger.log_hyperparams(dict(hyperparameters))
            if isinstance(version := logger.version, str) and version:
                versions[where] = version
    return versions


def end(loggers: Custom) -> None:
    """End the experiments of services that a process takes part in until it ends."""
    for logger in loggers.values():
        method = ENDED_BY.get(type(logger).__name__)
        experiment = getattr(logger, "_experiment", None)
        if method is not None and experiment is not None:
            try:
                getattr(experiment, method)()
            except Exception as error:  # what was trained is saved
                log.warning("%s: was not ended: %s", type(logger).__name__, error_line(error))


def states_of(loggers: Custom) -> dict[str, dict[str, object]]:
    return {
        where: each.state_dict() for where, each in loggers.items() if isinstance(each, Stateful)
    }


def restore_states(loggers: Custom, states: Mapping[str, dict[str, object]]) -> None:
    for where, logger in loggers.items():
        if isinstance(logger, Stateful) and where in states:
            logger.load_state_dict(states[where])


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    try:
        yield
    except ConvtrainError:
        raise
    except (Exception, SystemExit) as error:  # a library of others may raise anything
        raise ConfigError(f"{where}: cannot start: {error_line(error)}") from error
