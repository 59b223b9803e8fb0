"""The text of ``--help`` and ``--version``, without composing a configuration."""

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import yaml

from convtrain import __version__
from convtrain.command.choices import find_choices, head
from convtrain.program import as_typed
from convtrain.run.commands import CONFIGS

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core")


def versions() -> str:
    """Return the versions that a bug report should name."""
    found = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"convtrain {__version__}", *found])


def help_text(folders: Sequence[Path]) -> str:
    """Return the help as Hydra would fill it in; Hydra would compose every group six times.

    Args:
        folders: with the choices that it lists.
    """
    declared = yaml.safe_load((CONFIGS / "train.yaml").read_text())["hydra"]["help"]
    lines = []
    for group, files in find_choices(folders).items():
        if files:
            choices = [f"{name}{_images(file)}" for name, file in files.items()]
            lines.append(f"{group}: {', '.join(choices)}")
    text = as_typed(declared["template"]).replace("${hydra.help.header}", declared["header"])
    return text.replace("$APP_CONFIG_GROUPS", "\n".join(lines))


def _images(choice: Path) -> str:
    if choice.parent.name == "data":
        found = re.search(r"^shape: \[([\d, ]+)\]", choice.read_text(errors="replace"), re.M)
        return f" ({'x'.join(found[1].split(', '))})" if found else ""
    said = re.search(r"for (?:images of )?(\d+x\d+ and more|experiment=\w+)", head(choice).lower())
    return f" ({said[1]})" if choice.parent.name == "network" and said else ""
