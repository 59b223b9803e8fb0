"""Build a model: a declared network in either style, one of torchvision's, or a user's own."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convtrain.config.groups.model import CustomModel
from convtrain.errors import ConfigError, NetworkError, did_you_mean, first_line
from convtrain.models.functional import functionalize
from convtrain.models.memory import activate_in_place
from convtrain.models.parameters import apply_to_parameters
from convtrain.network.resolve import (
    PROBE_BATCH,
    ResolvedLayer,
    ResolvedNetwork,
    make_sequential,
    resolve_network,
)

Style = Literal["nn", "functional"]
Declared = Mapping[str, object]
"""Pattern of parameter names to a function; see :mod:`convtrain.models.parameters`."""


def build_model(
    layers: Sequence[object],
    input_shape: Sequence[int],
    *,
    style: Style = "functional",
    blocks: Mapping[str, object] | None = None,
    init: Declared | None = None,
    parametrize: Declared | None = None,
    prune: Declared | None = None,
    trust: Sequence[str] = (),
) -> nn.Module:
    """Build a declared network; from the same seed, both styles start with the same bits and keys.

    Args:
        layers, blocks: as in the YAML: ``["Flatten", {"Linear": {"out_features": 10}}]``. Layers of
            your own may also be classes: ``[{MyLayer: {"by": 2}}]``.
        input_shape: channels, height and width of one image.
        style: ``"nn"`` builds a tree of ``torch.nn`` modules, ``"functional"`` passes explicit
            Parameters to ``torch.nn.functional``.
        init, parametrize, prune: see :mod:`convtrain.models.parameters`.
        trust: packages whose layers may be named by import path: ``{"mypackage.MyLayer": ...}``.

    Raises:
        NetworkError: a layer is unknown, wrongly declared, or does not fit its input.
    """
    if style not in ("nn", "functional"):
        raise ConfigError(f"style={style!r}: choose 'nn' or 'functional'")
    network = resolve_network(layers, input_shape, blocks, trust)
    return build_network(network, style=style, init=init, parametrize=parametrize, prune=prune)


def build_network(
    network: ResolvedNetwork,
    *,
    style: Style,
    init: Declared | None = None,
    parametrize: Declared | None = None,
    prune: Declared | None = None,
    sync_batchnorm: bool = False,
    in_place: bool = False,
) -> nn.Module:
    """Build a resolved network; see :func:`build_model`.

    ``in_place`` lets activations overwrite their input where no other layer needs it.
    """
    refuse_taken_names(network.layers)
    module: nn.Module = make_sequential(network.layers)
    if in_place:
        activate_in_place(module)
    apply_to_parameters(module, "init", init or {})
    apply_to_parameters(module, "parametrize", parametrize or {})
    apply_to_parameters(module, "prune", prune or {})
    if sync_batchnorm:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    # A user's own layers have no twin, and parametrized and pruned layers compute their weights.
    return module if style == "nn" else functionalize(module, carry=True)


def refuse_taken_names(
    layers: Sequence[ResolvedLayer], holders: tuple[nn.Module, ...] = ()
) -> None:
    """Raise NetworkError for a layer whose name is an attribute of its holder in either style."""
    for layer in layers:
        for holder in holders or (nn.Sequential(), functionalize(nn.Sequential())):
            if hasattr(holder, layer.name):
                raise NetworkError(
                    f"network.layers: {layer.path} ({layer.entry.name}): "
                    f"name={layer.name} is an attribute of {type(holder).__name__}, which holds "
                    f"the layer; give it another name, such as {layer.name}_layer"
                )
        for argument, inner in layer.sublayers.items():
            itself = (layer.make_empty(),) if argument == "layers" else ()
            refuse_taken_names(inner, (nn.Sequential(), *itself))


def build_torchvision_model(name: str, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Build one of torchvision's classification models with fresh weights, without auxiliary heads.

    If the images do not have three channels, the first convolution is replaced. A ConfigError says
    that the model is unknown, a NetworkError that it cannot take images of ``input_shape``.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(
            f"model.name={name}: torchvision has no such classification model"
            f"{did_you_mean(name, known)}; torchvision.models.list_models() lists them"
        )

    def make() -> nn.Module:
        model = models.get_model(
            name, weights=None, num_classes=num_classes, **extra_arguments(name, input_shape)
        )
        if input_shape[0] != 3:
            _change_input_channels(model, input_shape[0])
        return model

    return make_checked(make, input_shape, num_classes, f"model.name={name}")


def make_checked(
    make: Callable[[], nn.Module], input_shape: Sequence[int], num_classes: int, what: str
) -> nn.Module:
    """Make a model after a copy without values has run; see :func:`check_output`."""

    def run() -> object:
        model = on_meta(make)
        with torch.device("meta"):  # computes shapes only
            return model(torch.empty(PROBE_BATCH, *input_shape))

    check_output(run, input_shape, num_classes, what)
    return make()


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a model without values; one whose builder reads values is made on the CPU and moved."""
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return make().to("meta")


def extra_arguments(name: str, input_shape: Sequence[int] | None = None) -> dict[str, object]:
    """Return the arguments that one of torchvision's models needs beside the number of classes.

    They make it return logits alone, and a vision transformer take images of ``input_shape``, which
    has as many positions as patches of an image.
    """
    if name.startswith("vit_") and input_shape is not None and input_shape[1] != 224:
        return {"image_size": input_shape[1]}
    return {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}


def build_custom_model(
    model: CustomModel,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    checks_classes: bool,
    device: torch.device,
    double: bool = False,
) -> nn.Module:
    """Call a user's class or factory, and run the module that it returns.

    Raises:
        NetworkError: the module cannot take images of ``input_shape``, or, if ``checks_classes``,
            does not return one logit for each class.
        ConfigError: the call fails, or does not return a module.
    """
    made = model.build(**offered_arguments(model, input_shape, num_classes))
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise ConfigError(f"{model.where}: must return a torch.nn.Module, and returns {kind}")
    logits = num_classes if checks_classes else None
    check_custom_output(made, input_shape, logits, model.where, device=device, double=double)
    return made


def offered_arguments(
    model: CustomModel, input_shape: Sequence[int], num_classes: int
) -> dict[str, object]:
    """Return the arguments that a user's class or factory takes and that follow from the data."""
    return model.offered(
        num_classes=num_classes,
        in_channels=input_shape[0],
        in_chans=input_shape[0],
        input_shape=tuple(input_shape),
    )


def check_output(
    run: Callable[[], object], input_shape: Sequence[int], num_classes: int | None, what: str
) -> None:
    """Raise NetworkError unless ``run`` returns a tensor with one logit for each class.

    ``num_classes=None`` accepts any tensor. ``what`` is the override that chose the model.
    """
    try:
        output = run()
    except Exception as error:
        raise NetworkError(
            f"{what}: cannot take images of {tuple(input_shape)}: {first_line(error)}"
        ) from error
    if not isinstance(output, Tensor):
        raise NetworkError(
            f"{what}: returns a {type(output).__name__}, not a tensor; return the logits alone"
        )
    if num_classes is not None:
        check_output_shape(output.shape[1:], num_classes, what)


def check_output_shape(shape: Sequence[int], num_classes: int, what: str) -> None:
    """Raise NetworkError unless a model returns one logit for each class."""
    if tuple(shape) != (num_classes,):
        raise NetworkError(
            f"{what}: the output of an image has shape {tuple(shape)}, but the data has "
            f"{num_classes} classes; end in Flatten and Linear: {{out_features: {num_classes}}}"
        )


def check_custom_output(
    model: nn.Module,
    input_shape: Sequence[int],
    num_classes: int | None,
    what: str,
    *,
    device: torch.device,
    double: bool = False,
) -> None:
    """Run a user's own module in training and evaluation mode; see :func:`check_output`.

    A copy runs, and the random generators are restored, so the training is not affected. A lazy
    module, which takes its sizes from its first input, runs itself.
    """
    lazy = any(is_lazy(tensor) for tensor in chain(model.parameters(), model.buffers()))
    subject = model if lazy else copy.deepcopy(model).to(device)
    if double:
        subject.double()
    where = torch.get_default_device() if lazy else device
    dtype = torch.float64 if double else torch.float32
    images = torch.zeros(PROBE_BATCH, *input_shape, device=where, dtype=dtype)
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), torch.random.fork_rng([where] if where.type == "cuda" else []):
        check_output(partial(subject, images), input_shape, num_classes, what)
        check_output(partial(subject.eval(), images), input_shape, num_classes, what)
    for module, mode in modes:
        module.training = mode


def _change_input_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution of three channels."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            replacement = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            model.set_submodule(path, replacement)
            return
