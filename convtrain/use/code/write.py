"""Write a declared network as a file of plain PyTorch, as somebody would write it by hand.

:mod:`.plan` decides on the classes, :mod:`.uses` finds the layers that each item of them stands
for, :mod:`.classes` writes them, and :mod:`.training` writes the loop. :mod:`.tensor_names` maps
the keys of a run's weights to those of the file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convtrain.config.groups.model import DeclaredModel
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.models.build import Style, refuse_taken_names
from convtrain.network.own import on_meta_or_cpu
from convtrain.network.resolve import ResolvedLayer, ResolvedNetwork, resolve_network
from convtrain.use.code.classes import class_lines, write_block
from convtrain.use.code.declared import NotAClassError
from convtrain.use.code.defined import HELPERS
from convtrain.use.code.forward import Statements
from convtrain.use.code.initial import Parameter, changes, initialisation, read_rules
from convtrain.use.code.parts import FrozenNetwork, Loop, frozen_network
from convtrain.use.code.plan import Planner
from convtrain.use.code.tensor_names import FileNames
from convtrain.use.code.training import training_loop
from convtrain.use.code.uses import Places, name_attributes, rename_inputs

WORDS = {
    "resnet": "ResNet", "lenet": "LeNet", "alexnet": "AlexNet", "convnet": "ConvNet",
    "densenet": "DenseNet", "googlenet": "GoogLeNet", "mobilenet": "MobileNet", "vgg": "VGG",
    "efficientnet": "EfficientNet", "convnext": "ConvNeXt", "lstm": "LSTM", "cifar": "CIFAR",
    "bn": "BN", "mlp": "MLP",
}  # fmt: skip
"""Words of a network's name that are not spelt as other names."""

STYLES = {
    "nn": "the layers are modules of torch.nn, which hold their weights.",
    "functional": "the weights are Parameters that functions take.",
}


LOADING = ("DataLoader", "Dataset", "TensorDataset", "WeightedRandomSampler")


@dataclass(frozen=True)
class Code:
    """A file, and its names of the tensors of a run.

    Attributes:
        text: the file.
        class_name: the network's class, which takes no arguments.
    """

    text: str
    class_name: str
    names: FileNames

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a run's network under the names that the file's class has."""
        return {self.names.key(key): value for key, value in state.items() if self.names.has(key)}


def write_code(
    config: Config,
    style: Style | None = None,
    head: str = "",
    tail: Sequence[str] | None = None,
    *,
    multi_label: bool = False,
    start: str = "start.pt",
) -> Code:
    """Write the declared network of a configuration, and its training loop.

    Args:
        style: that of the configuration if None.
        head: what the docstring of the file says after its first line.
        tail: lines to write in place of the training loop.
        multi_label: an image has any number of labels, although the configuration does not tell.
        start: the file that the loop loads ``model.weights`` from, with the names of this one.

    Raises:
        ConfigError: the network is not declared, does not fit the images, or cannot be written.
    """
    if not isinstance(config.model, DeclaredModel):
        raise ConfigError(
            f"model={config.model.style}: only a declared network has code to show, and this model "
            f"is a class that has its own; choose model=functional or model=nn"
        )
    style = style or config.model.style
    declared = config.network
    network = resolve_network(declared.layers, config.data.shape, declared.blocks, config.trust)
    refuse_taken_names(network.layers)
    class_name = class_name_of(declared.name)
    frozen = frozen_network(config) if tail is None else None
    lines, helpers, names = _classes(config, network, style, class_name, frozen)
    if tail is None:
        multi_label = multi_label or config.data.is_multi_label
        loop = Loop(config, class_name, names, frozen, multi_label, start)
        tail = [*training_loop(loop), "", "", 'if __name__ == "__main__":', "    train()"]
    defined = [line for name in sorted(helpers) for line in ["", *HELPERS[name].splitlines()]]
    body = [*defined, *lines, *tail]
    text = "\n".join([*_head(class_name, style, head, body, network), *body]) + "\n"
    return Code(text, class_name, names)


def class_name_of(network: str) -> str:
    """Return the name of the class: ``resnet18`` is ``ResNet18``."""
    words = re.findall(r"[A-Za-z]+|\d+", network)
    name = "".join(WORDS.get(word.lower(), word[:1].upper() + word[1:]) for word in words)
    name = name if name[:1].isalpha() else f"Net{name}"
    return f"{name}Net" if hasattr(nn, name) else name


def _head(
    name: str, style: Style, head: str, body: list[str], network: ResolvedNetwork
) -> list[str]:
    text = "\n".join(body)
    standard = [f"import {name}" for name in ("math", "sys") if f"{name}." in text]
    standard += ["from pathlib import Path"] if "Path(" in text else []
    loading = [each for each in LOADING if re.search(rf"\b{each}\(|\({each}\)", text)]
    own = sorted({f"from {o.__module__} import {o.__qualname__}" for o in _own(network)})
    return [
        f'"""{name} in plain PyTorch: {STYLES[style]}' + ("" if head else '"""'),
        *(["", *head.splitlines(), '"""'] if head else []),
        "",
        *([*standard, ""] if standard else []),
        "import torch",
        *(["import torch.nn.functional as F"] if "F." in text else []),
        "from torch import nn",
        *([f"from torch.utils.data import {', '.join(loading)}"] if loading else []),
        *(["from torchvision.transforms import v2"] if re.search(r"\bv2\.", text) else []),
        *(["", *own] if own else []),
    ]


def _own(network: ResolvedNetwork) -> list[Callable[..., object]]:
    """Return the classes and functions of the user's own layers."""
    leaves = [leaf for layer in network.layers for leaf in layer.leaves()]
    found = [leaf.entry.own for leaf in leaves if leaf.entry.own is not None]
    for own in found:
        if "." in own.__qualname__:
            raise ConfigError(
                f"{own.__module__}.{own.__qualname__}: a file cannot import it; define it at the "
                f"top of its module"
            )
    return found


def _classes(
    config: Config,
    network: ResolvedNetwork,
    style: Style,
    class_name: str,
    frozen: FrozenNetwork | None,
) -> tuple[list[str], set[str], FileNames]:
    """Return the lines of all classes, the functions that they need, and the names in them."""
    declared = config.network
    planner = Planner(declared.layers, declared.blocks, config.trust)
    while True:  # until no class is left that cannot be written
        try:
            return _write_plan(planner, config, network, style, class_name, frozen)
        except NotAClassError as error:
            key = str(error)
            if key in planner.inlined:
                raise ConfigError(
                    f"network={declared.name}: cannot be written as a file, because of "
                    f"{key or 'its layers'}; declare them without a repetition"
                ) from error
            planner.inlined.add(key)


def _write_plan(
    planner: Planner,
    config: Config,
    network: ResolvedNetwork,
    style: Style,
    class_name: str,
    frozen: FrozenNetwork | None,
) -> tuple[list[str], set[str], FileNames]:
    main, blocks = planner.plan(class_name)
    for block in (*blocks, main):
        name_attributes(block, style)
    places = Places().find(main, network)
    rename_inputs(blocks)
    for path, norm in frozen.norms.items() if frozen else ():
        if path in places.found and [*norm.parameters(recurse=False)]:
            places.found[path][1].is_frozen = True
    names = FileNames(places.found, style)
    helpers: set[str] = set()
    lines: list[str] = []
    for block in blocks:
        lines += ["", "", *write_block(block, style, helpers)]
    statements = Statements(main, style, helpers, network.input_shape).write()
    last = _last_statements(config, network, names, style)
    return [*lines, "", "", *class_lines(statements, last)], helpers, names


def _last_statements(
    config: Config, network: ResolvedNetwork, names: FileNames, style: Style
) -> list[str]:
    """Return what ``__init__`` does to the parameters after it has made the layers."""
    declared = config.network
    sections = {key: getattr(declared, key) for key in ("init", "parametrize", "prune")}
    if not any(sections.values()):
        return []
    if sections["parametrize"] and sections["prune"]:
        raise ConfigError(
            "network.prune: cannot be written together with network.parametrize; leave one out"
        )
    parameters = [each for layer in network.layers for each in _parameters(layer)]
    rules = {key: read_rules(key, section, parameters) for key, section in sections.items()}
    return [
        *initialisation(rules["init"], parameters, names, style),
        *changes("parametrize", rules["parametrize"], names, style),
        *changes("prune", rules["prune"], names, style),
    ]


def _parameters(layer: ResolvedLayer) -> list[Parameter]:
    found = []
    for leaf in layer.leaves():

        def names(device: str, leaf: ResolvedLayer = leaf) -> list[tuple[str, type[nn.Module]]]:
            with torch.device(device):
                module = leaf.make()
            return [
                (f"{path}.{key}" if path else key, type(owner))
                for path, owner in module.named_modules()
                for key, _ in owner.named_parameters(recurse=False)
            ]

        owners = on_meta_or_cpu(leaf.entry, names)
        found += [Parameter(f"{leaf.path}.{key}", owner) for key, owner in owners]
    return found
