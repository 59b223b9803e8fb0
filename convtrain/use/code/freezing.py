"""Write which parameters are frozen, until when, and that their norms keep their statistics."""

import math
import re
from collections.abc import Collection

from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import fit
from convtrain.use.code.parts import FrozenNetwork, Loop, Part, comment

CUTS = r"(?<=[._])|(?<=[a-z])(?=\d)|$"
"""Where the beginning of a name may end: ``layer``, ``layer1.``, ``layer1.0.conv_``."""


def freezing(loop: Loop) -> Part:
    if loop.frozen is None:
        return Part()
    model = loop.config.model
    keys = [f"model.freeze=[{', '.join(model.freeze)}]"] * bool(model.freeze)
    keys += ["optimizer.groups"] * any(group.freeze for group in loop.config.optimizer.groups)
    named = loop.frozen.model.named_parameters()
    starts = {loop.names.key(key): loop.frozen.start_epoch(key, each) for key, each in named}
    trained = [name for name, start in starts.items() if start == 0]
    due = [name for name, start in starts.items() if start < math.inf]
    condition = selection(trained, starts)
    text, later = " and ".join(keys), len(due) > len(trained)
    if later:
        text += f" before epoch {model.unfreeze_at_epoch} (the first is 0)"
        is_due, which = f"epoch >= {model.unfreeze_at_epoch}", selection(due, starts)
        condition = f"{condition} or {is_due} and {which}" if which else f"{is_due} or {condition}"
    indent = 8 if later else 4  # in the epochs, or before them
    lines = [
        *comment(f"{text}: without a gradient, a parameter stays what it is.", indent),
        f"{' ' * indent}for name, parameter in model.named_parameters():",
        *fit(f"parameter.requires_grad_({condition})", indent + 4),
    ]
    norms, left_out = _norms(loop, loop.frozen)
    if later:
        return Part(epoch=[*lines, *norms], left_out=left_out)
    return Part(ready=lines, epoch=norms, left_out=left_out)


def _norms(loop: Loop, network: FrozenNetwork) -> tuple[list[str], list[str]]:
    """Return the statements for frozen norms that are modules of the file, and what is left out.

    A norm that is written as a function reads ``requires_grad`` of its weight itself.
    """
    modules, without_weights, left_out = [], False, []
    for path, norm in network.model.named_modules():
        if norm._buffers.get("running_mean") is None:
            continue
        is_frozen, is_module = norm in network.frozen.norms, loop.names.is_module(path)
        starts = [network.start_epoch(f"{path}.{key}", p) for key, p in norm.named_parameters()]
        without_weights |= not starts
        if starts and is_module:
            modules += [f"nn.{type(norm).__name__}"] * is_frozen
        elif starts:
            reads_weight = loop.names.item(path).is_frozen
            is_frozen = min(starts) != (starts[0] if reads_weight else 0)
        if is_frozen and not (starts and is_module):
            left_out.append(f"model.freeze of the statistics of {loop.names.key(path)}")
    if not modules:
        return [], left_out
    first, *others = dict.fromkeys(modules)
    kinds = f"({', '.join([first, *others])})" if others else first
    return [
        "        for layer in model.modules():  # a frozen norm keeps its statistics",
        f"            if isinstance(layer, {kinds}){' and layer.affine' * without_weights}:",
        "                layer.train(any(p.requires_grad for p in layer.parameters()))",
    ], left_out


def selection(chosen: Collection[str], names: Collection[str]) -> str:
    """Return a condition on ``name`` that is true for the chosen names; empty if all are."""
    others = [name for name in names if name not in set(chosen)]
    if not others:
        return ""
    found = [f"name in {literal(tuple(chosen))}"]
    for no, wanted, rest in (("", chosen, others), ("not ", others, chosen)):
        starts = [_beginning(name, rest) for name in wanted]
        ends = [re.split(r"[._]", name)[-1] for name in wanted]
        if not any(name.startswith(tuple(starts)) for name in rest):
            found.append(f"{no}name.startswith({_one_or_more(starts)})")
        if not any(name.endswith(tuple(ends)) for name in rest):
            found.append(f"{no}name.endswith({_one_or_more(ends)})")
    return min(found, key=len)


def _beginning(name: str, rest: Collection[str]) -> str:
    """Return the shortest beginning that no other name has."""
    for cut in re.finditer(CUTS, name):
        start = name[: cut.start()]
        if start and not any(other.startswith(start) for other in rest):
            return start
    return name


def _one_or_more(texts: list[str]) -> str:
    first, *others = dict.fromkeys(texts)
    return literal((first, *others) if others else first)
