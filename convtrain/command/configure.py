"""Turn the arguments of a command into typed configurations, or into a line for each mistake."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.auto import AUTO, choose_run, is_kept
from convtrain.command.command_line import CommandLine
from convtrain.command.compose import Composed, compose_command
from convtrain.command.hydra_node.check import check_hydra, trust_of, with_late_values
from convtrain.command.hydra_node.logs import logging_mistakes
from convtrain.command.hydra_node.paths import folder_mistakes
from convtrain.command.job_config import resolve_config
from convtrain.command.resolvers import register_resolvers
from convtrain.command.resume import why_not_anew
from convtrain.command.sweep import sweep_settings
from convtrain.command.sweep_mistakes import sweep_mistakes
from convtrain.config.dotted import is_below
from convtrain.config.mistakes import TYPED, Mistake, line
from convtrain.config.schema import Config
from convtrain.config.targets import check_targets
from convtrain.errors import ConfigError
from convtrain.process.lock import refusal, stays_locked
from convtrain.process.ranks import is_main_process
from convtrain.run.commands import override
from convtrain.run.directory import Run
from convtrain.text import as_omegaconf


class Configured(NamedTuple):
    """A valid command."""

    command: CommandLine
    configs: list[Config]  # one for a run, one for each value of a sweep
    composed: Composed  # the first one
    settings: Mapping[str, object]  # set in Hydra's node by a sweep, by dotted key

    @property
    def config(self) -> Config:
        """The configuration of a run, or the first one of a sweep."""
        return self.configs[0]


def configure(arguments: Sequence[str], *other_options: str) -> Configured:
    """Compose and check a command before anything runs.

    ``other_options`` are options of the caller, one of which may be misspelt.

    Raises:
        ConfigError: with one line for each mistake.
    """
    return configure_command(CommandLine.parse(arguments, *other_options))


def configure_command(command: CommandLine) -> Configured:
    """Compose and check a parsed command, with every value of a sweep."""
    register_resolvers()
    if auto := AUTO in command.overrides:
        if command.multirun:
            raise ConfigError(f"{AUTO}: leave it out; the same command resumes a sweep")
        command = replace(command, overrides=[t for t in command.overrides if t != AUTO])
    first: Composed | None = None
    configs: list[Config] = []
    unread: list[str] = []  # overrides that are left out, so that a default takes their place
    lines: list[str] = []
    for composed in compose_command(command, unread):
        cwd = _cwd(composed)
        try:
            config = resolve_config(composed.config, command.overrides, composed.origin, cwd)
            if auto and not unread and (run := choose_run(config, composed.overrides)) is not None:
                command = _resume(run, command, composed)
                config = resolve_config(composed.config, command.overrides, composed.origin, cwd)
            check_targets(config, composed.origin)
            configs.append(config)
        except ConfigError as error:
            lines += error.lines
        if first is None or composed.hydra is not first.hydra:  # else the node is the same
            lines += _hydra_lines(composed, command, is_alone=not lines)
        first = first or composed
    lines = [*unread, *(text for text in lines if not _judges_a_default(text, unread))]
    if lines:
        raise ConfigError(*dict.fromkeys(lines))
    assert first is not None
    settings: dict[str, object] = {}
    if command.multirun:
        if wrong := list(sweep_mistakes(configs, first.hydra, first.overrides)):
            raise ConfigError(*wrong)
        shared = _shared(command, first)
        settings = sweep_settings(configs, first.hydra, first.overrides, shared)
    return Configured(command, configs, first, settings)


def _cwd(composed: Composed) -> Path | None:
    """Return the working directory if ``hydra.job.chdir`` makes the job leave it, or None."""
    with contextlib.suppress(OmegaConfBaseException, ValueError):  # reported with the others
        return Path.cwd() if composed.hydra.job.chdir else None
    return None


def _resume(run: Path, command: CommandLine, composed: Composed) -> CommandLine:
    """Make a composed configuration resume another run; return the command for it."""
    kept = [o for o in composed.overrides if is_kept(o)]
    resume = override("resume", str(run))
    typed = [*(o.input_line or "" for o in kept), resume]
    hydra = [text for text in typed if text.startswith(("hydra.", "hydra/"))]
    for key, value in (
        ("resume", as_omegaconf(str(run))),
        ("hydra.run.dir", as_omegaconf(str(run))),
        ("hydra.overrides.hydra", hydra),
        ("hydra.overrides.task", [text for text in typed if text not in hydra]),
    ):
        OmegaConf.update(composed.whole, key, value, merge=False)
    composed.config.resume = composed.whole.resume
    return replace(command, overrides=typed)


def _shared(command: CommandLine, composed: Composed) -> dict[str, object]:
    fixed = [o.input_line or "" for o in composed.overrides if not o.is_sweep_override()]
    try:
        (without,) = compose_command(replace(command, overrides=fixed, multirun=False))
    except ConfigError:  # it is complete only with one of the swept choices
        return {"overrides": sorted(fixed)}
    plain = OmegaConf.to_container(without.config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _judges_a_default(text: str, unread: Sequence[str]) -> bool:
    """Tell whether a line is about the default of a key whose override is left out."""
    key, *above = (re.split(r"[=:]", t, maxsplit=1)[0].lstrip("+~") for t in (text, *unread))
    below = any(is_below(key, left_out) for left_out in above)
    return below and not text.endswith(f"[set in: {TYPED}]")


def _hydra_lines(composed: Composed, command: CommandLine, is_alone: bool) -> list[str]:
    """Check Hydra's node. Unresolved values count only if they are the only mistakes."""
    try:
        resume = composed.config.get("resume")
        plain, mistakes, unresolved = check_hydra(composed.hydra, trust_of(composed.config))
    except ConfigError as error:
        return list(error.lines)
    except OmegaConfBaseException:
        return []  # resume cannot be resolved, which is reported by itself
    mistakes += folder_mistakes(plain)
    if not mistakes and not unresolved:
        mistakes = list(logging_mistakes(plain))
    if not mistakes and is_alone:  # what was typed comes first, and others may follow from it
        typed = [mistake for mistake in unresolved if composed.origin(mistake.key) == TYPED]
        mistakes = typed or unresolved
    mode = plain.get("mode")
    if mode is not None and (mode == RunMode.MULTIRUN) != command.multirun:
        mistakes.append(Mistake("hydra.mode", "leave it out; -m makes a sweep, and nothing a run"))
    # A run that is resumed has its directory, and a job of a sweep has one in the sweep's.
    unused = {"hydra.run.dir"} if resume or command.multirun else set()
    unused |= set() if command.multirun else {"hydra.sweep.dir"}
    mistakes = [mistake for mistake in mistakes if mistake.key not in unused]
    if not command.multirun and is_main_process():  # other ranks find rank 0's lock
        mistakes += _lost_run(composed.hydra, bool(resume))
    shown = {"hydra": with_late_values({**plain, "mode": getattr(mode, "name", None)})}
    return [line(mistake, shown, composed.origin) for mistake in mistakes]


def _lost_run(hydra: DictConfig, resumes: bool) -> Iterator[Mistake]:
    with contextlib.suppress(OmegaConfBaseException, ValueError):
        run, key = Run(str(OmegaConf.select(hydra, "run.dir"))), "hydra.run.dir"
        if (who := stays_locked(run.path)) is not None:
            yield Mistake("resume" if resumes else key, refusal(who))
        elif not resumes and (reason := why_not_anew(run)) is not None:
            yield Mistake(key, reason)
