"""Going on with a run: its own stored configuration, and the few overrides that make sense."""

from collections.abc import Iterable
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.anchors import refuse_explosion
from convtrain.errors import ConfigError
from convtrain.text import plain_as_omegaconf

CHANGEABLE = (
    "resume",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.threads",
    "trainer.log_every_n_steps",
    "callbacks.checkpoint.every_n_epochs",
    "callbacks.checkpoint.every_n_steps",
    "callbacks.checkpoint.every_n_minutes",
    "callbacks.checkpoint.keep_last",
    "callbacks.progress_bar",
    "data.root",
    "data.download",
)


def stored_config(run_dir: str, overrides: Iterable[str]) -> DictConfig:
    """Return the configuration of a run, with the overrides of the command that resumes it.

    Raises:
        ConfigError: there is no run or no checkpoint, or an override would make it another run.
    """
    folder = Path(run_dir)
    for needed in ("config.yaml", "checkpoints/*.ckpt"):
        if not _any_file(folder, needed):
            raise ConfigError(
                f"resume={run_dir}: {folder / needed} does not exist; give the directory of a run "
                f"that has saved a checkpoint"
            )
    stored = read_config(folder / "config.yaml")
    parser, lines = OverridesParser.create(), []
    for override in parser.parse_overrides(list(overrides)):
        key = override.key_or_group
        if key == "hydra.run.dir" and Path(str(override.value())).resolve() != folder.resolve():
            lines.append(
                f"{override.input_line}: a run that is resumed stays in its directory; "
                f"leave it out, or copy {run_dir} there and resume that"
            )
        if key.startswith("hydra."):
            continue
        if key not in CHANGEABLE:
            lines.append(
                f"{override.input_line}: cannot change when a run is resumed; allowed are "
                f"{', '.join(CHANGEABLE[1:])}"
            )
            continue
        OmegaConf.update(stored, key, override.value())
    if lines:
        raise ConfigError(*lines)
    return stored


def why_not_anew(folder: Path) -> str | None:
    """Return why no new run may begin in a directory, or None: what another has left stays."""
    if _any_file(folder, "result.json"):
        return "holds a finished run; choose another directory, or leave this key out"
    if _any_file(folder, "checkpoints/*.ckpt"):
        return f"holds a run that has saved checkpoints; to go on with it: resume={folder}"
    return None


def _any_file(folder: Path, pattern: str) -> bool:
    try:
        return any(folder.glob(pattern))
    except OSError:  # such as a name that is too long
        return False


def read_config(path: Path) -> DictConfig:
    """Read the configuration of a run, which may come from anybody.

    It was written with all interpolations resolved, so a ``${`` in it is text.

    Raises:
        ConfigError: it cannot be read.
    """
    refuse_explosion(path)
    try:
        plain = yaml.safe_load(path.read_text())
        stored = OmegaConf.create(plain_as_omegaconf(plain)) if isinstance(plain, dict) else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    if stored is None:
        raise ConfigError(f"{path}: is not the configuration of a run")
    return stored
