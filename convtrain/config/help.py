"""``train.py --help``: the text that ``configs/train.yaml`` declares, with all choices."""

import yaml

from convtrain.config.command_line import CONFIGS


def help_text() -> str:
    """Return the help, as Hydra would fill it in; Hydra's own way composes every group six times.

    Files that begin with ``_`` are no choices, and are left out.
    """
    declared = yaml.safe_load((CONFIGS / "train.yaml").read_text())["hydra"]["help"]
    lines = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        choices = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
        if choices:
            lines.append(f"{folder.name}: {', '.join(choices)}")
    text: str = declared["template"].replace("${hydra.help.header}", declared["header"])
    return text.replace("$APP_CONFIG_GROUPS", "\n".join(lines))
