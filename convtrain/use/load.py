"""Load the trained model of a run."""

from pathlib import Path

import torch

from convtrain.assembly import build_model, wants_channels_last
from convtrain.command.job_config import config_of
from convtrain.config.groups.loss import WeightedLoss
from convtrain.config.groups.model import DeclaredModel
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, first_line
from convtrain.models.build import Style
from convtrain.models.memory import lay_channels_last
from convtrain.run.directory import Run
from convtrain.training.beginning import CLASS_WEIGHTS
from convtrain.training.devices import kind_of_device
from convtrain.training.precision import make_precision
from convtrain.training.saved_weights import find_checkpoint, load_weights, read_weights
from convtrain.use.trained import Trained


def load(
    run: Path | str,
    checkpoint: Path | str | None = None,
    style: Style | None = None,
    device: str = "auto",
) -> Trained:
    """Load the trained model of a run, with its class names and its preprocessing.

    Nothing in the checkpoint is executed; a model, layers and packages of a user's own are
    imported, as for the training. The data is not needed.

    Example::

        import convtrain

        trained = convtrain.load("logs/runs/lenet/RUN")
        found = trained.predict("photographs/")
        print(found.labels, found.top)

    Args:
        run: the run's directory, finished or not.
        checkpoint: ``best`` by the monitored metric, ``last``, the name of a file in
            ``RUN/checkpoints``, or the path of a file. None is the one that the run was tested
            with; of an unfinished run the best, or the last if it keeps no best one.
        style: ``nn`` or ``functional`` for a declared network, which gives the same bits; None is
            the style of the training.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: a GPU if there is one.

    Raises:
        MissingDataError: there is no such run or checkpoint.
        CorruptDataError: the checkpoint is damaged, or does not fit the model.
        ConfigError: the style or the device cannot be chosen, or a class cannot be imported.
    """
    here, place = Run(run), _device(device)
    here.require()
    config = _to_use(config_of(here, reads_data=False), style, place)
    path = find_checkpoint(here, checkpoint)
    weights = read_weights(path, here)
    random_state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(config.seed)  # a buffer that is not saved may be random
        model = build_model(config)
    finally:
        torch.set_rng_state(random_state)
    channels_last = wants_channels_last(config, model)
    precision = make_precision(config.trainer.precision, place.type)
    model = precision.convert_module(model).eval()  # or float64 weights would be rounded
    load_weights(model, weights, path)
    model = model.to(place)
    if channels_last:
        lay_channels_last(model)
    return Trained(
        here, config, path, model,
        classes=class_names(here, config),
        multi_label=bool(here.read_provenance().get("multi_label")),
        channels_last=channels_last, device=place, precision=precision,
    )  # fmt: skip


def class_names(run: Run, config: Config) -> list[str]:
    """Return the names of the classes that a run's model knows, in the order of its logits."""
    names = run.read_provenance().get("classes") or config.data.class_names
    return list(map(str, names))


def class_weights(run: Run, config: Config) -> list[float] | None:
    """Return the class weights that a run computed from its data for its loss, or None.

    Raises:
        CorruptDataError: the run's provenance does not have them.
    """
    if not isinstance(config.loss, WeightedLoss) or config.loss.class_weights != "balanced":
        return None
    known = run.read_provenance().get(CLASS_WEIGHTS)
    if not isinstance(known, list) or len(known) != config.data.class_count:
        raise CorruptDataError(
            f"{run.path}: provenance.json lacks the {CLASS_WEIGHTS} of the training, so the loss "
            f"is not known; restore the file"
        )
    return known


def _to_use(config: Config, style: Style | None, device: torch.device) -> Config:
    """Return the configuration with one device and without what only a training needs."""
    kind = {"cuda": "gpu"}.get(device.type, device.type)
    alone = {
        "accelerator": kind, "devices": 1, "strategy": "auto", "num_nodes": 1,
        "sync_batchnorm": False, "compile": None,
    }  # fmt: skip
    changed: dict[str, object] = {"trainer": config.trainer.model_copy(update=alone)}
    if style is not None:
        if style not in ("nn", "functional"):
            raise ConfigError(f"style={style!r}: choose 'nn' or 'functional'")
        if not isinstance(config.model, DeclaredModel):
            raise ConfigError(
                f"style={style!r}: only a declared network has styles, and the run has "
                f"model={config.model.style}; leave it out"
            )
        changed["model"] = config.model.model_copy(update={"style": style})
    return config.model_copy(update=changed)


def _device(name: str) -> torch.device:
    if name == "auto":
        kind = kind_of_device("auto")
        return torch.device("cuda" if kind == "gpu" else kind)
    try:
        chosen = torch.device("cuda" if name == "gpu" else name)
        if chosen.type == "meta":
            raise NotImplementedError("it holds no values")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device={name}: {first_line(error)}; choose auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return chosen
