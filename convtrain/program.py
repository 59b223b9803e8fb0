"""How this process was started, and what a user types to start convtrain again.

The clone has ``python train.py`` and ``python -m convtrain VERB``; an installed package has the
console script, ``convtrain train`` and ``convtrain VERB``. Every command and every hint that is
printed takes its first words from here, so that it works in the shell that printed it.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # the clone, or site-packages
TRAIN = HOME / "train.py"
SCRIPT = "convtrain"


def train_words(here: Path | None = None) -> list[str]:
    """Return the words before the arguments of a training, to be typed in ``here``.

    By default, ``here`` is ``typed_in()``.
    """
    here = here or typed_in()
    if _is_of_clone(here):
        return [python(here), relative(TRAIN, here)]
    return verb_words("train", here)


def verb_words(verb: str, here: Path | None = None) -> list[str]:
    """Return the words before the arguments of a verb, to be typed in ``here``."""
    here = here or typed_in()
    if (script := None if _is_of_clone(here) else _console_script(here)) is not None:
        return [script, verb]
    importable = here.resolve() == HOME or _is_installed()
    before = [] if importable else ["env", f"PYTHONPATH={relative(HOME, here)}"]
    return [*before, python(here), "-m", "convtrain", verb]


def torchrun_words(processes: int) -> list[str]:
    """Return the words before the arguments of a training that torchrun starts here."""
    here = typed_in()
    target = [relative(TRAIN, here)] if _is_of_clone(here) else ["-m", "convtrain", "train"]
    words = script_words("torchrun", "torch.distributed.run", here)
    return [*words, "--nproc-per-node", str(processes), *target]


def as_typed(text: str) -> str:
    """Adapt a text that says ``python train.py`` and ``python -m convtrain``, as in the clone."""

    def words(found: re.Match[str]) -> str:
        is_training = found[0] == "python train.py"
        return shlex.join(train_words() if is_training else verb_words("VERB")[:-1])

    return re.sub(r"python train\.py|python -m convtrain", words, text)


def install(extra: str) -> str:
    """Return the command that installs an extra of convtrain."""
    if (HOME / "pyproject.toml").is_file():
        return shlex.join(["pip", "install", "-e", f"{relative(HOME)}[{extra}]"])
    return shlex.join(["pip", "install", f"convtrain[{extra}]"])


def python(here: Path | None = None) -> str:
    """Return how the shell finds this interpreter: its name, or else its path."""
    own = Path(sys.executable or "python")
    for name in ("python", "python3", own.name):
        found, beside = shutil.which(name), own.with_name(name)
        is_own = beside.exists() and beside.resolve() == own.resolve()
        if is_own and found and Path(found).parent.resolve() == own.parent.resolve():
            return name
    return relative(own, here or typed_in())


def script_words(name: str, module: str, here: Path | None = None) -> list[str]:
    """Return how a library's script is typed: its name, its path, or ``python -m MODULE``.

    It is the script of this interpreter, which an environment may lack.
    """
    own, found = Path(sys.executable or "python").with_name(name), shutil.which(name)
    if not own.exists():
        return [python(here), "-m", module]
    is_found = found is not None and Path(found).resolve() == own.resolve()
    return [name if is_found else relative(own, here)]


def relative(path: Path, here: Path | None = None) -> str:
    """Return a path relative to ``here``, or the absolute path if it is outside.

    By default, ``here`` is ``typed_in()``.
    """
    typed = typed_in()
    path, here = typed / path, here or typed
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def typed_in() -> Path:
    """Return the directory in which the command was typed, also under ``hydra.job.chdir``."""
    hydra_config = sys.modules.get("hydra.core.hydra_config")
    if hydra_config is not None and hydra_config.HydraConfig.initialized():
        return Path(hydra_config.HydraConfig.get().runtime.cwd)
    return Path.cwd()


# --- how this process was started -----------------------------------------------------------------


def _started_by() -> Path:
    return Path(sys.argv[0] if sys.argv else "")


def _is_of_clone(here: Path) -> bool:
    """Tell whether ``python train.py`` started this process, or is what one types in ``here``."""
    by = _started_by()
    if by.stem == SCRIPT or not TRAIN.is_file():
        return False
    return by.name == TRAIN.name or here.resolve() == HOME


def _console_script(here: Path) -> str | None:
    """Return how the console script is typed; None without one, or under ``python -m``."""
    by = _started_by()
    if by.stem != SCRIPT:
        is_module = by.is_absolute() and by.resolve() == HOME / "convtrain" / "__main__.py"
        by = Path(sys.executable or "python").with_name(SCRIPT)
        if is_module or not by.is_file():
            return None
    found = shutil.which(SCRIPT)
    by = typed_in() / by
    return SCRIPT if found and Path(found).resolve() == by.resolve() else relative(by, here)


def _is_installed() -> bool:
    """Tell whether every process of this interpreter can import convtrain."""
    if not TRAIN.is_file():
        return True
    from importlib import metadata  # slow to import

    # The clone may hold metadata of its own, which only a process that is started there finds.
    found = metadata.distributions(name="convtrain")
    return any(Path(str(each.locate_file(""))).resolve() != HOME for each in found)
