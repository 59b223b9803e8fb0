"""The format pt2: a program of ``torch.export``, which needs neither convtrain nor Python code.

Its metadata is the extra file ``metadata.json``::

    extra = {"metadata.json": ""}
    model = torch.export.load("model.pt2", extra_files=extra).module()
    logits = model(images)  # uint8 (N, channels, height, width)
"""

import io
import json
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from convtrain.errors import NetworkError, one_line
from convtrain.models.function import Function
from convtrain.use.formats.portable import Portable, Predict
from convtrain.use.formats.quiet import quiet

METADATA = "metadata.json"
MAX_MESSAGE = 200  # characters of a library's message


def write(portable: Portable, path: Path) -> None:
    program = trace(portable)
    buffer = io.BytesIO()  # torch's writer would hide why a file cannot be written
    text = json.dumps(portable.metadata, indent=2)
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA: text})
    path.write_bytes(buffer.getvalue())


def read(portable: Portable, path: Path) -> Predict:
    with quiet():
        module = torch.export.load(path).module()
    return module


def trace(portable: Portable, format: str = "pt2") -> ExportedProgram:
    """Return the model's program, for batches of any size, without the paths of this machine.

    Raises:
        NetworkError: a layer's code cannot be traced; the message names it.
    """
    free = {dim: Dim(name, min=1) for dim, name in portable.free_dimensions.items()}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                portable.model, (portable.example,), dynamic_shapes=(free,), strict=False
            )
    except Exception as error:  # code of the user's own, or of torch about it, raises anything
        raise NetworkError(_why(error, portable, format)) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def _why(error: Exception, portable: Portable, format: str) -> str:
    said = str(error)
    if "Constraints violated" in said or "ConstraintViolation" in type(error).__name__:
        return (
            f"--format {format}: {own_code(portable)} computes with a fixed batch size; write "
            f"x.shape[0] or -1 instead of a number"
        )
    where = _layer_of(error, portable.model.model) or own_code(portable)
    return (
        f"--format {format}: {where} cannot be traced by torch.export: {shortened(said)}; change "
        f"its code, or choose --format python or safetensors"
    )


def shortened(message: str) -> str:
    """Return a library's message on one line of limited length."""
    line = one_line(message.partition("\n\n")[0])
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def own_code(portable: Portable) -> str:
    """Name the first layer, or else the model, whose code is neither torch's nor convtrain's."""
    for name, module in portable.model.model.named_modules():
        if type(module).__module__.partition(".")[0] not in ("torch", "torchvision", "convtrain"):
            return (
                f"{name} ({type(module).__name__})"
                if name
                else f"the model {type(module).__name__}"
            )
    return "the model"


def _layer_of(error: BaseException | None, model: nn.Module) -> str:
    """Return the path and class of the innermost layer that was computing when an error arose."""
    names = {id(module): name for name, module in model.named_modules() if name}
    while error is not None:
        traceback, found = error.__traceback__, ""
        while traceback is not None:
            layer = traceback.tb_frame.f_locals.get("self")
            if isinstance(layer, Function) and layer.path:
                found = f"{layer.path} ({layer.kind.__name__})"
            elif id(layer) in names:
                found = f"{names[id(layer)]} ({type(layer).__name__})"
            traceback = traceback.tb_next
        if found:
            return found
        error = error.__cause__ or error.__context__
    return ""
