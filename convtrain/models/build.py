"""Build a model: a declared network in either style, or one that comes from elsewhere."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as is_lazy_tensor

from convtrain.config.trust import MODULE, Kind, load
from convtrain.errors import ConfigError, NetworkError, did_you_mean, error_line, first_line
from convtrain.models.functional import functionalize
from convtrain.models.initialization import initialize
from convtrain.models.memory import activate_in_place
from convtrain.models.reparametrization import parametrize_weights, prune_weights
from convtrain.network.resolve import PROBE_BATCH, Layer, Network, make_chain, resolve_network

Style = Literal["nn", "functional"]


@dataclass(frozen=True)
class Weights:
    """What is done to a network's weights before the first step, each by parameter name pattern.

    Attributes:
        init: functions of ``torch.nn.init``.
        parametrize: functions of ``torch.nn.utils.parametrizations``.
        prune: functions of ``torch.nn.utils.prune``.
    """

    init: Mapping[str, Any] = field(default_factory=dict)
    parametrize: Mapping[str, Any] = field(default_factory=dict)
    prune: Mapping[str, Any] = field(default_factory=dict)


def build_model(
    layers: Sequence[Any],
    input_shape: Sequence[int],
    *,
    style: Style = "functional",
    blocks: Mapping[str, Any] | None = None,
    init: Mapping[str, Any] | None = None,
    parametrize: Mapping[str, Any] | None = None,
    prune: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a declared network.

    Both styles draw their weights from torch's generator in the same order, so from the same seed
    they start with the same bits, under the same ``state_dict`` keys.

    Args:
        layers: the list as in the YAML: ``["Flatten", {"Linear": {"out_features": 10}}]``.
        input_shape: of one image, as (channels, height, width).
        style: ``"nn"`` for a tree of ``torch.nn`` modules, ``"functional"`` for explicit
            Parameters handed to ``torch.nn.functional``.
        blocks: blocks that the layers use by name, as in the YAML.
        init: parameter name pattern to function of ``torch.nn.init``; see
            :func:`convtrain.models.initialization.initialize`.
        parametrize, prune: parameter name pattern to a parametrization or a pruning; see
            :mod:`convtrain.models.reparametrization`.

    Raises:
        NetworkError: a layer is unknown, wrongly declared, or does not fit what comes in.
    """
    if style not in ("nn", "functional"):
        raise ConfigError(f"style={style!r}: choose 'nn' or 'functional'")
    weights = Weights(init or {}, parametrize or {}, prune or {})
    network = resolve_network(layers, input_shape, blocks)
    return build_network(network, style=style, weights=weights)


def build_network(
    network: Network,
    *,
    style: Style,
    weights: Weights | None = None,
    sync_batchnorm: bool = False,
    in_place: bool = False,
) -> nn.Module:
    """Build a network that is resolved already; see :func:`build_model`.

    Args:
        sync_batchnorm: let batch norm see the batches of all processes.
        in_place: let activations overwrite what they are given, where nothing else needs it.
    """
    check_names(network)
    weights = weights or Weights()
    module: nn.Module = make_chain(network.layers)
    if in_place:
        activate_in_place(module)
    initialize(module, weights.init)
    parametrize_weights(module, weights.parametrize)
    prune_weights(module, weights.prune)
    if sync_batchnorm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    # Parametrized and pruned layers compute their weights; they are carried as they are.
    carry = bool(weights.parametrize or weights.prune)
    return module if style == "nn" else functionalize(module, carry=carry)


def check_names(network: Network) -> None:
    """Refuse names that a module which holds the layer needs for itself, in either style.

    Raises:
        NetworkError: names the layer, and whose attribute its name is.
    """
    _check_chain(network.layers, (nn.Sequential(), functionalize(nn.Sequential())))


def _check_chain(layers: Sequence[Layer], holders: tuple[nn.Module, ...]) -> None:
    for layer in layers:
        for holder in holders:
            if hasattr(holder, layer.name):
                raise NetworkError(
                    f"network.layers: {layer.path} ({layer.entry.module.__name__}): "
                    f"name={layer.name} is an attribute of {type(holder).__name__}, which holds "
                    f"the layer; give it another name, such as {layer.name}_layer"
                )
        for argument, inner in layer.chains.items():
            itself = (layer.make_empty(),) if argument == "layers" else ()
            _check_chain(inner, (nn.Sequential(), *itself))


def build_torchvision_model(name: str, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build one of torchvision's classification models with fresh weights.

    The first convolution is replaced where the images do not have three channels. Auxiliary heads
    are left out.

    Raises:
        ConfigError: torchvision has no such classification model.
        NetworkError: the model cannot take images of ``input_shape``.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(
            f"model.name={name}: torchvision has no such classification model"
            f"{did_you_mean(name, known)}; torchvision.models.list_models() lists them"
        )
    extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}

    def make() -> nn.Module:
        model = models.get_model(name, weights=None, num_classes=num_classes, **extra)
        if input_shape[0] != 3:
            _change_input_channels(model, input_shape[0])
        return model

    def run() -> Any:
        with torch.device("meta"):  # which computes shapes alone
            return make()(torch.empty(PROBE_BATCH, *input_shape))

    check_output(run, input_shape, num_classes, f"model.name={name}")
    return make()


def build_custom_model(
    target: str, arguments: Mapping[str, Any], trust: Sequence[str]
) -> nn.Module:
    """Build a module of the user's own from its import path.

    Raises:
        ConfigError: it is not trusted, not a torch.nn.Module, or refuses the arguments.
    """
    module: nn.Module = make_trusted("model._target_", target, arguments, trust, MODULE)
    return module


def make_trusted(
    key: str, target: str, arguments: Mapping[str, Any], trust: Sequence[str], kind: Kind
) -> Any:
    """Make an object of the class ``package.module.Name``, if it may be used.

    Raises:
        ConfigError: one line on what is wrong with the name, its class or the arguments.
    """
    made = load(key, target, trust, kind)
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}={target}: {error}") from error
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"{key}={target}: {error_line(error)}") from error


def check_output(
    run: Callable[[], Any], input_shape: Sequence[int], num_classes: int | None, what: str
) -> None:
    """Run a model on a few images.

    Args:
        run: returns what the model makes of them.
        input_shape: of one image, for the message.
        num_classes: that the data has; None where any tensor will do.
        what: names the model.

    Raises:
        NetworkError: it does not take the images, or does not return a score for each class.
    """
    try:
        output = run()
    except Exception as error:
        raise NetworkError(
            f"{what}: cannot take images of {tuple(input_shape)}: {first_line(error)}"
        ) from error
    if not isinstance(output, Tensor):
        raise NetworkError(
            f"{what}: returns a {type(output).__name__}, not a tensor; return the scores alone"
        )
    if num_classes is not None:
        check_scores(tuple(output.shape[1:]), num_classes, what)


def check_custom_output(
    model: nn.Module,
    input_shape: Sequence[int],
    num_classes: int | None,
    what: str,
    *,
    device: torch.device,
    double: bool = False,
) -> None:
    """Run a module of the user's own as its training and its validation will.

    A copy runs, and the random numbers that it draws are drawn again, so that the training is the
    same as without. A module that takes its sizes from its first input runs itself.

    Raises:
        NetworkError: see :func:`check_output`.
    """
    is_lazy = any(is_lazy_tensor(tensor) for tensor in chain(model.parameters(), model.buffers()))
    subject = model if is_lazy else copy.deepcopy(model).to(device)
    if double:
        subject.double()
    where = torch.get_default_device() if is_lazy else device
    dtype = torch.float64 if double else torch.float32
    images = torch.zeros(PROBE_BATCH, *input_shape, device=where, dtype=dtype)
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), torch.random.fork_rng([where] if where.type == "cuda" else []):
        check_output(partial(subject, images), input_shape, num_classes, what)
        check_output(partial(subject.eval(), images), input_shape, num_classes, what)
    for module, mode in modes:
        module.training = mode


def check_scores(output_shape: Sequence[int], num_classes: int, what: str) -> None:
    """Raise NetworkError unless a model returns one score for each class."""
    if tuple(output_shape) != (num_classes,):
        raise NetworkError(
            f"{what}: the output of an image has shape {tuple(output_shape)}, but the data has "
            f"{num_classes} classes; end in Flatten and Linear: {{out_features: {num_classes}}}"
        )


def _change_input_channels(model: nn.Module, channels: int) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            parent, _, name = path.rpartition(".")
            replacement = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            setattr(model.get_submodule(parent), name, replacement)
            return
