"""Write the loss, and its class weights."""

import torch

from convtrain.config.groups.loss import CustomLoss, Focal, WeightedLoss
from convtrain.errors import ConfigError
from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import fit
from convtrain.use.code.parts import Loop, Part, changed

FOCAL = """

def focal_loss(logits, labels{weights}):
    # Cross entropy times (1 - p)^gamma, where p is the probability of the answer.
    targets = {targets}
"""
SOFTMAX = """    log_p = F.log_softmax(logits, dim=1)
    losses = -targets * (1 - log_p.exp()) ** {gamma} * log_p
    return {losses}.sum(1).mean()"""
SIGMOID = """    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    has = -targets * log_q.exp() ** {gamma} * log_p
    lacks = -(1 - targets) * log_p.exp() ** {gamma} * log_q
    return {losses}.mean()"""


def criterion(loop: Loop) -> Part:
    """Write what defines the loss, its module, and its class weights."""
    defined, shown = _loss(loop)
    module = []
    if isinstance(loop.config.loss, CustomLoss):
        module = fit(f"criterion = {shown}.to(device)", 4)
    return Part(defined=defined, ready=[*module, *_class_weights(loop)])


def loss_value(loop: Loop) -> str:
    """Return the loss as an expression of ``logits`` and ``labels``."""
    is_module = isinstance(loop.config.loss, CustomLoss)
    return "criterion(logits, labels)" if is_module else _loss(loop)[1]


def _loss(loop: Loop) -> tuple[list[str], str]:
    """Return what defines the loss, and its value of ``logits`` and ``labels``, or its module."""
    config = loop.config
    chosen, values, count = config.loss, config.loss.arguments, config.data.class_count
    one_hot = "labels" if loop.is_multi_label else f"F.one_hot(labels, {count}).float()"
    is_weighted = isinstance(chosen, WeightedLoss) and chosen.class_weights is not None
    weights = ", class_weights" if is_weighted else ""
    each, mean = (f'{weights}, reduction="none"', ".mean()") if is_weighted else ("", "")
    match chosen.name:
        case "cross_entropy":
            given = changed(torch.nn.functional.cross_entropy, values)
            inside = ", ".join(filter(None, [f"logits, labels{each}", given]))
            return [], f"F.cross_entropy({inside}){mean}"
        case "multi_margin":
            given = changed(torch.nn.functional.multi_margin_loss, values)
            given = ", ".join(filter(None, [given, "weight=class_weights" * is_weighted]))
            return [], f"F.multi_margin_loss({', '.join(filter(None, ['logits, labels', given]))})"
        case "nll":
            return [], f"F.nll_loss(F.log_softmax(logits, dim=1), labels{each}){mean}"
        case "mse":
            return [], f"F.mse_loss(logits, {one_hot})"
        case "sum":
            return [], "logits.sum()"
        case "bce":
            smoothing = values["label_smoothing"]
            if smoothing:
                one_hot += f" * (1 - {smoothing}) + {smoothing} / {count}"
            weights = ", pos_weight=class_weights" * is_weighted
            return [], f"F.binary_cross_entropy_with_logits(logits, {one_hot}{weights})"
    if isinstance(chosen, Focal):
        alpha = literal(chosen.alpha)
        if is_weighted:
            losses = "(losses * class_weights)"
            if chosen.form == "sigmoid":
                losses = "(has * class_weights + lacks)"
        elif chosen.form == "softmax":
            losses = (
                "losses"
                if chosen.alpha is None
                else f"(losses * torch.tensor({alpha}, device=losses.device))"
            )
        elif chosen.alpha is None:
            losses = "(has + lacks)"
        else:
            losses = f"({alpha} * has + (1 - {alpha}) * lacks)"
        body = SOFTMAX if chosen.form == "softmax" else SIGMOID
        one_hot = "labels" if loop.is_multi_label else "F.one_hot(labels, logits.shape[1]).float()"
        text = FOCAL.format(weights=weights, targets=one_hot)
        text += body.format(gamma=literal(chosen.gamma), losses=losses)
        return text.splitlines(), f"focal_loss(logits, labels{weights})"
    assert isinstance(chosen, CustomLoss)
    given = ", ".join(f"{key}={_tensor(value)}" for key, value in values.items())
    if chosen.target.startswith("torch.nn."):
        return [], f"nn.{chosen.class_name}({given})"
    raise ConfigError(
        f"loss._target_={chosen.target}: the file imports torch alone; choose a loss of torch, "
        f"such as loss=cross_entropy"
    )


def _class_weights(loop: Loop) -> list[str]:
    """Return the statements that make the class weights, if the loss has them."""
    loss, count = loop.config.loss, loop.config.data.class_count
    if not isinstance(loss, WeightedLoss) or (chosen := loss.class_weights) is None:
        return []
    if chosen != "balanced":
        return fit(f"class_weights = torch.tensor({literal(chosen)}, device=device)", 4)
    if loop.is_multi_label:
        present = "    present = labels.sum(0)  # images that have a label"
        weights = "    class_weights = ((len(labels) - present) / present).to(device)"
        return [present, weights]
    images = f"torch.bincount(labels, minlength={count})"
    return fit(f"class_weights = (len(labels) / ({count} * {images})).to(device)", 4)


def _tensor(value: object) -> str:
    is_tensor = isinstance(value, torch.Tensor)
    return f"torch.tensor({literal(value.tolist())})" if is_tensor else literal(value)  # type: ignore[attr-defined]
