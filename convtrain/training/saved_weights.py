"""Which checkpoint of a run is meant, and its weights."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from convtrain.errors import CorruptDataError, MissingDataError, did_you_mean, few
from convtrain.run.directory import LAST, Run
from convtrain.training.checkpoint_file import RUN_ID, best_in, checkpoints_in, load_checkpoint

MODEL, LOSS = "model.", "loss."  # prefixes of the network and of the loss in the task's state_dict


def find_checkpoint(run: Run, name: Path | str | None = None) -> Path:
    """Return the path of a checkpoint.

    Args:
        name: ``best`` by the monitored metric, ``last``, the name of a file in ``RUN/checkpoints``,
            or the path of a file. None is the one that the run was tested with; of an unfinished
            run the best, or the last if it keeps no best one.

    Raises:
        MissingDataError: the run has no such checkpoint.
    """
    known = {file.removesuffix(".ckpt"): run.checkpoints / file for file in run.saved()}
    named = _default(run) if name is None else str(name)
    if named.removesuffix(".ckpt") in known:
        return known[named.removesuffix(".ckpt")]
    if name is not None and Path(name).is_file():
        return Path(name)
    if not known:
        which = "a run that has saved one" if run.config.is_file() else "a run"
        raise MissingDataError(f"{run.checkpoints}: no checkpoints; give the directory of {which}")
    if named == "best":
        return best_in(run.checkpoints)
    near = did_you_mean(named, ["best", *known])
    raise MissingDataError(f"--checkpoint {named}: {run.path} has best, {', '.join(known)}{near}")


def _default(run: Run) -> str:
    if (result := run.read_result()) is not None and "tested_checkpoint" in result:
        return result["tested_checkpoint"] or LAST
    keeps_best = any(path.name.startswith("best") for path in checkpoints_in(run.checkpoints))
    return "best" if keeps_best else LAST


def read_weights(path: Path, run: Run, part: str = MODEL) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network, or of a loss, by their names, on the CPU.

    Raises:
        CorruptDataError: the file is damaged, executes code, or belongs to another run.
    """
    content = load_checkpoint(path)
    ours, theirs = run.read_provenance().get(RUN_ID), content.get(RUN_ID)
    if None not in (ours, theirs) and ours != theirs:
        raise CorruptDataError(f"{path}: is a checkpoint of another run than {run.path}")
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise CorruptDataError(f"{path}: incomplete, it lacks state_dict")
    found = {k.removeprefix(part): value for k, value in state.items() if k.startswith(part)}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise CorruptDataError(f"{path}: {name} is a {type(value).__name__}, not a tensor")
    return found


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model; CorruptDataError names those that do not fit."""
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is left over" for name in weights if name not in own]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and tensor.shape != weights[name].shape
    ]
    if wrong:
        raise CorruptDataError(
            f"{path}: does not fit the model that the run's config.yaml declares: {few(wrong)}; "
            f"has the code of the model changed since?"
        )
    model.load_state_dict(dict(weights))
