"""The text of ``--help`` and ``--version``, without composing a configuration."""

import re
from importlib import metadata
from pathlib import Path

import yaml

from convtrain import __version__
from convtrain.run.commands import CONFIGS

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core")


def versions() -> str:
    """Return the versions that a bug report should name."""
    found = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"convtrain {__version__}", *found])


def help_text() -> str:
    """Return the help as Hydra would fill it in; Hydra would compose every group six times."""
    declared = yaml.safe_load((CONFIGS / "train.yaml").read_text())["hydra"]["help"]
    lines = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        choices = [f"{path.stem}{_images(path)}" for path in sorted(folder.glob("[!_]*.yaml"))]
        if choices:
            lines.append(f"{folder.name}: {', '.join(choices)}")
    text: str = declared["template"].replace("${hydra.help.header}", declared["header"])
    return text.replace("$APP_CONFIG_GROUPS", "\n".join(lines))


def _images(choice: Path) -> str:
    text = choice.read_text()
    if choice.parent.name == "data":
        shape = yaml.safe_load(text).get("shape")
        return f" ({'x'.join(map(str, shape))})" if shape else ""
    said = re.search(r"for (?:images of )?(\d+x\d+ and more|experiment=\w+)", text.lower())
    return f" ({said[1]})" if choice.parent.name == "network" and said else ""
