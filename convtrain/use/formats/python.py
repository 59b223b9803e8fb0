"""The format python: a file of plain PyTorch, with its weights beside it in a file for torch.load.

The file has the network as somebody would write it by hand, or for a model of torchvision or of
the user's own the lines that make it::

    import model
    network = model.load()
    logits = network(images)  # uint8 (N, channels, height, width)
"""

import ast
import io
import runpy
from importlib.resources import files
from pathlib import Path
from pprint import pformat

import jinja2
import torch
from torch import nn

from convtrain.config.groups.model import CustomModel, DeclaredModel, TimmModel, TorchvisionModel
from convtrain.errors import ConfigError
from convtrain.models.build import extra_arguments, offered_arguments
from convtrain.use.code.write import class_name_of, write_code
from convtrain.use.formats.portable import Portable, Predict
from convtrain.use.formats.quiet import quiet

HEAD = """Written by convtrain export from a run, which METADATA describes.
The weights are in the file of the same name that ends in .pt."""
TEMPLATE = "model.py.j2"
WIDTH = 90  # characters of a line of a constant
MODES = {1: "L", 3: "RGB"}  # channels to Pillow's mode


def write(portable: Portable, path: Path) -> None:
    trained, state = portable.trained, portable.model.model.state_dict()
    if isinstance(trained.config.model, DeclaredModel):
        tail = _tail(portable, class_name_of(trained.config.network.name))
        try:
            code = write_code(trained.config, head=HEAD, tail=tail.splitlines())
        except ConfigError as error:
            said = str(error).replace("model=nn", "--style nn")
            raise ConfigError(f"--format python: {said}") from error
        text, state = code.text, code.rename(state)
    else:
        text = _text_of_others(portable)
    buffer = io.BytesIO()
    torch.save({name: tensor.detach() for name, tensor in state.items()}, buffer)
    path.with_suffix(".pt").write_bytes(buffer.getvalue())
    path.write_text(text, encoding="utf-8")


def read(portable: Portable, path: Path) -> Predict:
    with quiet():
        model: Predict = runpy.run_path(str(path))["load"]()
    return model


def _tail(portable: Portable, name: str, make: str | None = None) -> str:
    """Return the lines after the network's class or function, which ``make()`` calls."""
    trained, metadata = portable.trained, dict(portable.metadata)
    channels, height, width = trained.preprocessing.shape
    rules = trained.preprocessing.rules
    is_classes = portable.logits(portable.example).ndim == 2
    text = files("convtrain.use.formats").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return jinja2.Template(text).render(
        name=name,
        make=make or name,
        shape=f"{channels}, {height}, {width}",
        size=(width, height),
        filter=rules.interpolation,
        stored=rules.store_size,
        part=rules.eval_crop,
        mode=MODES.get(channels) if is_classes else None,
        crop=rules.resize == "crop",
        multi_label=trained.multi_label,
        classes=_literal(metadata.pop("classes")),
        mean=_literal(list(trained.preprocessing.mean)),
        std=_literal(list(trained.preprocessing.std)),
        metadata="".join(f"    {key!r}: {value!r},\n" for key, value in metadata.items()),
    )


def _literal(value: object) -> str:
    return pformat(value, width=WIDTH, compact=True, sort_dicts=False)


# --- models of torchvision, and the user's own ----------------------------------------------------


def _text_of_others(portable: Portable) -> str:
    config = portable.trained.config
    classes, shape = config.data.class_count, portable.trained.preprocessing.shape
    if isinstance(config.model, TorchvisionModel):
        arguments: dict[str, object] = {
            "num_classes": classes,
            **extra_arguments(config.model.name, shape),
        }
        if "aux_logits" in arguments:
            arguments["init_weights"] = False  # which takes long, for weights that are replaced
        imported = "from torchvision import models"
        called = f"models.get_model({_call(config.model.name, weights=None, **arguments)})"
    elif isinstance(config.model, TimmModel):
        made = {"pretrained": False, "num_classes": classes, "in_chans": shape[0]}
        imported, called = "import timm", f"timm.create_model({_call(config.model.name, **made)})"
    else:
        assert isinstance(config.model, CustomModel)
        builder = config.model.builder
        offered = offered_arguments(config.model, shape, classes)
        arguments = {**config.model.arguments, **offered}
        imported = f"\nfrom {builder.__module__} import {builder.__qualname__.partition('.')[0]}"
        called = f"{builder.__qualname__}({_call(**arguments)})"
    head = [
        f'"""A trained model in plain PyTorch.\n\n{HEAD}\n"""', "", "import sys",
        "from pathlib import Path", "", "import torch", "from torch import nn", imported, "", "",
        "def make_network():", f"    network = {called}", *_first_convolution(portable),
        "    return network",
    ]  # fmt: skip
    return "\n".join([*head, *_tail(portable, "Model", "make_network").splitlines()]) + "\n"


def _call(*positional: object, **named: object) -> str:
    """Return the arguments of a call; ConfigError for one that is no literal of Python."""
    for key, value in named.items():
        try:
            is_literal = ast.literal_eval(repr(value)) == value
        except (ValueError, SyntaxError):
            is_literal = False
        if not is_literal:
            raise ConfigError(
                f"--format python: model.{key} is a {type(value).__name__}, which has no spelling "
                f"in a file; choose --format pt2, onnx or safetensors"
            )
    return ", ".join([*map(repr, positional), *(f"{k}={v!r}" for k, v in named.items())])


def _first_convolution(portable: Portable) -> list[str]:
    """Return the line that replaces torchvision's first convolution, which takes colour images."""
    channels = portable.trained.preprocessing.shape[0]
    if channels == 3 or not isinstance(portable.trained.config.model, TorchvisionModel):
        return []
    for path, module in portable.model.model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == channels:
            return [f"    network.set_submodule({path!r}, nn.{module!r})"]
    return []
