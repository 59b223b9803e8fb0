"""Turn an error of Hydra's composition into one line that names the override or the file."""

import re
from pathlib import Path

import yaml
from hydra.conf import HydraConf
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from convtrain.command.choices import shown_path
from convtrain.command.overrides import no_such_choice, shown
from convtrain.config.dotted import walk
from convtrain.config.mistakes import TYPED
from convtrain.errors import closest, message_lines


def culprit_of(error: Exception, overrides: list[Override]) -> Override | None:
    """Return the override that an error names, if any."""
    first = _lines(error)[0]
    named = re.findall(r"'([^']*)'", first)
    for words in (r"merging override (.*)", r"Multiple values for (.*?)\.", r"(.*) appears more"):
        named += re.findall(words, first)
    keys = {_key(name) for name in named}
    typed = [override for override in overrides if _key(override.input_line or "") in keys]
    return typed[-1] if typed else None  # the last one counts


def explain(error: Exception, culprit: Override | None, folders: list[Path]) -> str:
    """Return one line on why a configuration cannot be composed."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        source = TYPED if culprit else _asking(folders, group, choice)
        return no_such_choice(group, choice, [str(option) for option in error.options], source)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: cannot be read: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"{_unreadable(folders, UnicodeDecodeError)}: cannot be read: it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return f"{_unreadable(folders, RecursionError)}: its values are nested too deeply"
    if culprit is None:
        return f"the configuration cannot be composed: {_reason(error)}"
    return f"{shown(culprit)}: {_about(culprit, error)} [set in: command line]"


def _about(culprit: Override, error: Exception) -> str:
    typed, first = (culprit.input_line or "").partition("=")[0], _lines(error)[0]
    if first.startswith(("Could not delete", "Ambiguous value")):
        missing = "not exist" in first
        return "there is no such key to delete" if missing else f"type ~{typed.lstrip('~')} alone"
    if first.startswith("Could not override") and ("/" in typed or "@" in typed):
        return "no such group of choices"
    if first.startswith("Could not override"):
        section, _, name = typed.rpartition(".")
        if section == "hydra.launcher":  # HydraConf does not know the keys of the chosen one
            from convtrain.command.hydra_node.launcher import unknown_key

            return unknown_key(name, list(getattr(error.__cause__, "parent_node", ())))
        keys = hydra_keys()
        near = keys.get(closest(name, keys) or "", typed)
        if near == typed:
            return f"no such key; what is new there is added by +{typed}.NAME=VALUE"
        return f"no such key; did you mean {near}?"
    if first.startswith(("Could not append", "Multiple values")) or " appears more " in first:
        return f"exists already; leave out the +: {shown(culprit).lstrip('+')}"
    if first.startswith("Error merging") and error.__cause__ is not None:
        return _lines(error.__cause__)[0]
    return _reason(error)


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")


def _reason(error: Exception) -> str:
    lines = _lines(error)[: 1 if isinstance(error, MissingConfigException) else 2]
    return " ".join(lines)


def _lines(error: BaseException) -> list[str]:
    if not str(error).strip() and error.__cause__ is not None:
        return _lines(error.__cause__)
    return message_lines(error)


def hydra_keys() -> dict[str, str]:
    """Return the dotted keys of Hydra's own node by their last part."""
    known = OmegaConf.to_container(OmegaConf.structured({"hydra": HydraConf}))
    keys: dict[str, str] = {}
    for parts, _ in walk(known):
        for end in range(2, len(parts) + 1):
            keys.setdefault(parts[end - 1], ".".join(parts[:end]))
    return keys


def _asking(folders: list[Path], group: str, choice: str) -> str:
    """Return the file whose defaults list asks for a choice that does not exist."""
    asked = re.compile(rf"^\s*- .*\b{re.escape(group)}\b.*:\s*{re.escape(choice)}\s*(#.*)?$", re.M)
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        if asked.search(path.read_text(encoding="utf-8", errors="replace")):
            return shown_path(path)
    return "a defaults list"


def _unreadable(folders: list[Path], kind: type[Exception]) -> str:
    """Return the file that raises ``kind`` when it is read; Hydra does not name it."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        try:
            yaml.safe_load(path.read_text(encoding="utf-8"))
        except kind:
            return str(path)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
    return "a file of the configuration"
