"""Turn a job's composed configuration, or that of the run it resumes, into a typed one."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.data_facts import fill_in
from convtrain.command.following import follow_weights, set_by_user
from convtrain.command.overrides import at_home
from convtrain.command.resolve import to_plain
from convtrain.command.resume import read_config, stored_config
from convtrain.config.check import validate
from convtrain.config.mistakes import TYPED, Mistake, Origin, line
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, first_line
from convtrain.run.directory import Run
from convtrain.run.starting_weights import is_published_name

WEIGHTS = "model.weights"
PATHS = (
    "data.root", "data.file", "data.train.root", "data.val.root", "data.test.root",
    "data.cache_dir", "resume", WEIGHTS,
)  # fmt: skip


def config_of(run: Run, *, reads_data: bool = True) -> Config:
    """Return the configuration of a run, as the user asked for it.

    ``reads_data=False`` does not look at the files of the data, which may be gone.
    """
    stored = read_config(run)
    stored["resume"] = None
    return resolve_config(stored, reads_data=reads_data, is_new=False)


def resolve_config(
    composed: DictConfig,
    overrides: Sequence[str] = (),
    origin: Origin | None = None,
    cwd: Path | None = None,
    reads_data: bool = True,
    judged: Sequence[str] | None = None,
    is_new: bool = True,
) -> Config:
    """Resolve interpolations, fill in what follows from the data and the weights, and validate.

    Args:
        composed: without Hydra's own node. If it names a run to resume, the configuration of
            that run replaces it.
        origin: returns what set a key, which is shown after each mistake.
        cwd: the folder that relative paths start from, if not the working directory.
        reads_data: False does not look at the files of the data.
        judged: the sections to which the rules between keys apply; by default all.
        is_new: False for the configuration of a run, whose data has followed its weights already.

    Raises:
        ConfigError: with one line for each mistake.
    """
    if resume := _resumed(composed, origin):
        resume = str((cwd or Path()) / at_home(resume))
        composed, typed = stored_config(resume, overrides, composed), origin
        file, is_new = str(Run(resume).config), False

        def origin(key: str) -> str:
            return TYPED if typed is not None and typed(key) == TYPED else file

    composed = composed.copy()
    OmegaConf.set_readonly(composed, False)
    OmegaConf.set_struct(composed, False)
    for key in PATHS:
        with contextlib.suppress(OmegaConfBaseException):  # reported with the others
            path = OmegaConf.select(composed, key)
            if key == WEIGHTS and is_published_name(str(path)):
                continue
            if isinstance(path, str) and path and (cwd or path.startswith("~")):
                OmegaConf.update(composed, key, str((cwd or Path()) / at_home(path)))
    kept = set_by_user(composed, overrides)
    found = fill_in(composed) if reads_data else []
    found += follow_weights(composed, kept) if is_new else []
    plain, unresolved = to_plain(composed)
    return validate(plain, origin, [*found, *unresolved], reads_data=reads_data, judged=judged)


def _resumed(composed: DictConfig, origin: Origin | None) -> str | None:
    try:
        resume = composed.get("resume")
    except OmegaConfBaseException as error:
        raise ConfigError(line(Mistake("resume", first_line(error)), {}, origin)) from error
    if resume and not isinstance(resume, str):
        value = OmegaConf.to_container(resume) if OmegaConf.is_config(resume) else resume
        wrong = Mistake("resume", "must be the directory of a run; type resume=RUN_DIRECTORY")
        raise ConfigError(line(wrong, {"resume": value}, origin))
    return resume
