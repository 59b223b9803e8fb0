"""Write a small project of your own: configs, a package, a test. It trains at once.

The package has the name of the folder.

Example: python -m convtrain new stripes
"""

import argparse
import keyword
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

from convtrain.errors import ConfigError
from convtrain.text import make_console

PACKAGE = "mypackage"  # its name in the template
TAKEN = ("configs", "tests", "logs")  # folders of the project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="a folder that does not exist, or is empty"
    )


def run(arguments: argparse.Namespace) -> int:
    from convtrain import program
    from convtrain.run.commands import SHIPPED

    folder = Path(arguments.folder)
    package = re.sub(r"\W", "_", folder.resolve().name).lower()
    if (reason := _refusal(folder, package)) is not None:
        raise ConfigError(f"{folder}: {reason}")
    template = SHIPPED / "template"
    try:
        for source in sorted(template.rglob("*")):
            if source.is_file() and source.suffix != ".pyc":
                name = str(source.relative_to(template)).replace(PACKAGE, package)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                text = source.read_text(encoding="utf-8").replace(PACKAGE, package)
                (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
    there = folder.resolve()
    words, python = program.verb_words("train", there), program.python(there)
    before = words[:2] if words[0] == "env" else []
    tests = [*before, "make", "test", *([] if python == "python" else [f"PYTHON={python}"])]
    change = shlex.join(["cd", str(folder)])
    console = make_console()
    console.print(f"{folder}: a project with the package {package}")
    console.print(f"train  {change} && {shlex.join([*words, 'experiment=mine'])}")
    console.print(f"test   {change} && {shlex.join(tests)}")
    return 0


def _refusal(folder: Path, package: str) -> str | None:
    """Return why there can be no such project, or None."""
    from convtrain.config.trust import untrustworthy

    if folder.exists() and not folder.is_dir():
        return "is a file; give a folder that does not exist, or is empty"
    if folder.is_dir() and any(folder.iterdir()):
        return "is not empty; give a folder that does not exist, or is empty"
    if not package.isidentifier() or keyword.iskeyword(package) or package in TAKEN:
        return f"{package} cannot be the name of a package; give another name, such as stripes"
    if (reason := untrustworthy(package)) is not None:
        return f"{reason}; give another name, such as stripes"
    found = find_spec(package)
    if found is not None and found.origin and not Path(found.origin).is_relative_to(Path.cwd()):
        return f"a package {package} is installed, and would be found first; give another name"
    return None
