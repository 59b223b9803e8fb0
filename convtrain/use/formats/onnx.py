"""The format onnx, for ONNX Runtime and what else reads it.

The metadata are the ``metadata_props`` of the model::

    session = onnxruntime.InferenceSession("model.onnx")
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    (logits,) = session.run(None, {"images": images})  # uint8 (N, channels, height, width)
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from convtrain.errors import ConfigError, NetworkError
from convtrain.models.functional import FunctionalModel
from convtrain.program import install
from convtrain.use.formats.portable import IMAGES, LOGITS, PixelModel, Portable, Predict
from convtrain.use.formats.pt2 import own_code, shortened, trace
from convtrain.use.formats.quiet import quiet
from convtrain.use.load import load

OPSET = 18  # the one that torch's exporter writes; later ones only convert it
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ERRORS_ONLY = 3  # severity of what ONNX Runtime prints


def require_packages() -> None:
    """Raise ConfigError unless the packages of the extra ``onnx`` are installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"--format onnx: needs {', '.join(missing)}; {install('onnx')}")


def write(portable: Portable, path: Path) -> None:
    require_packages()
    program = _without_adaptive_max_pool(trace(portable, "onnx"))
    try:
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[IMAGES],
                output_names=[LOGITS], dynamic_shapes=(portable.free_dimensions,),
                external_data=False, verbose=False,
            )  # fmt: skip
            assert made is not None
            made.model.metadata_props.update(portable.texts)
            made.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds of errors, and onnx its own
        raise NetworkError(_why(error, portable)) from error


def read(portable: Portable, path: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(pixels: Tensor) -> Tensor:
        (logits,) = session.run(None, {IMAGES: pixels.numpy()})
        return torch.from_numpy(logits)

    return predict


# --- adaptive max pooling, which torch's exporter does not know -----------------------------------

MAX_POOLS = tuple(
    getattr(torch.ops.aten, f"adaptive_max_pool{rank}d").default for rank in (1, 2, 3)
)


def _without_adaptive_max_pool(program: ExportedProgram) -> ExportedProgram:
    """Compute each region's maximum by itself; a maximum has no rounding."""
    used = [node for node in program.graph.nodes if node.target in MAX_POOLS]
    for node in used:
        if any(user.args[1:] == (1,) and user.users for user in node.users):
            return program  # the positions are asked for as well, which torch then refuses
    return program.run_decompositions(dict.fromkeys(MAX_POOLS, _adaptive_max)) if used else program


def _adaptive_max(images: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the maxima, and in place of their positions, which nobody uses, zeros."""
    for offset, regions in enumerate(output_size):
        dimension = images.dim() - len(output_size) + offset
        length = images.shape[dimension]
        bounds = [(i * length // regions, -(-(i + 1) * length // regions)) for i in range(regions)]
        parts = (images.narrow(dimension, low, high - low) for low, high in bounds)
        images = torch.cat([part.amax(dimension, keepdim=True) for part in parts], dimension)
    return images, torch.zeros_like(images, dtype=torch.int64)


# --- which layer cannot be converted --------------------------------------------------------------


def _why(error: Exception, portable: Portable) -> str:
    said = f"{error.__cause__} {error}"
    operation = re.search(r"target=torch\.ops\.(\w+\.\w+)", said) or re.search(r"aten\.\w+", said)
    if operation is None:
        return (
            f"--format onnx: {own_code(portable)} cannot be converted by torch.onnx: "
            f"{shortened(str(error))}; choose --format pt2 or python"
        )
    name = operation[operation.lastindex or 0]
    return (
        f"--format onnx: {_layer_with(name, portable) or own_code(portable)} computes {name}, "
        f"which torch.onnx cannot convert; choose --format pt2 or python, or declare another layer"
    )


def _layer_with(operation: str, portable: Portable) -> str:
    """Return the path and class of the layer that computes an operation, or an empty text."""
    trained = portable.trained
    model = trained.model
    if isinstance(model, FunctionalModel):  # torch.export notes the layers of modules only
        model = load(trained.run.path, trained.checkpoint, "nn", "cpu").model.float()
    whole = PixelModel(model, portable.model.normalise, portable.model.resize).eval()
    program = trace(Portable(trained, whole, {}), "onnx")
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    for node in nodes:
        if str(node.target).rpartition(".")[0] == operation:
            return _layer(node)
    return ""


def _layer(node: Node) -> str:
    stack = [(path, kind) for path, kind in node.meta.get("nn_module_stack", {}).values()]
    path, kind = stack[-1] if stack else ("", "")
    name = re.sub(r"^.*?\bmodel\.", "", path)
    return f"{name} ({str(kind).rpartition('.')[2].rstrip(chr(39) + '>')})" if name else ""
