"""The choices of each group: their files, and what the comment at the head of a file says of it."""

import re
from collections.abc import Sequence
from pathlib import Path

from convtrain.command.command_line import own_folder
from convtrain.run.commands import CONFIGS, HOME


def find_choices(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Return the file of each choice, by group and name; the first folder that has one counts."""
    files = [path for folder in reversed(folders) for path in folder.glob("*/*.yaml")]
    groups: dict[str, dict[str, Path]] = {path.parent.name: {} for path in files}
    for path in files:
        if not path.name.startswith("_"):
            groups[path.parent.name][path.stem] = path
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups)}


def head(file: Path) -> str:
    """Return the comment at the head of a file, in one line, or an empty text."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""  # reported where the file is read
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not re.match(r"#\s*@package\b", line):
            comment.append(line.lstrip("# "))
    return " ".join(" ".join(comment).split())


def summary(file: Path) -> str:
    """Return the first sentence of a file's head, and what a training with it reached."""
    text = head(file)
    said = re.split(r"(?<=[.?!]) (?=[A-Z`])| Command: ", text, maxsplit=1)[0]
    reached = re.search(r"Reaches: (.*?)(?= \(|, |\. |\.?$)", text)
    return f"{said} Reaches {reached[1]}." if reached else said


def shown_path(file: Path) -> str:
    """Return a path below ./configs or convtrain/configs, or an absolute one."""
    own = own_folder()
    if own is not None and file.is_relative_to(own):
        return str(Path("configs", file.relative_to(own)))
    if not file.is_relative_to(CONFIGS):
        return str(file)
    above = Path("convtrain") if own is not None else CONFIGS.parent.relative_to(HOME)
    return str(above / "configs" / file.relative_to(CONFIGS))
