"""Write the training loop: the six steps, with the configured loss, optimiser and schedule."""

import inspect
import re
import textwrap
from collections.abc import Mapping

import torch

from convtrain.config.groups.loss import CustomLoss, Focal, WeightedLoss
from convtrain.config.groups.optimizer import GROUPING, CustomOptimizer, Muon
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import fit

AUGMENTS = ("random_crop", "horizontal_flip", "cutout", "mixup", "cutmix", "transforms")


def training_loop(config: Config, class_name: str) -> list[str]:
    """Return the lines of ``train()``."""
    trainer, data = config.trainer, config.data
    optimizer, left_out = _optimizer(config)
    schedule, missing = _schedule(config)
    loss, shown = _loss(config)
    criterion = []
    if isinstance(config.loss, CustomLoss):
        criterion = fit(f"criterion = {shown}.to(device)", 4)
        shown = "criterion(logits, labels)"
    criterion += _class_weights(config)
    left_out = [*left_out, *missing, *_others(config)]
    if (weights := config.model.starting_weights) is not None:
        left_out.append(f"model.weights={weights}")
    if config.model.freeze:
        left_out.append(f"model.freeze={literal(config.model.freeze)}")
    shape = ", ".join(map(str, data.shape))
    clip = []
    if trainer.gradient_clip_val is not None:
        by_norm = trainer.gradient_clip_algorithm == "norm"
        name = "clip_grad_norm_" if by_norm else "clip_grad_value_"
        value = literal(trainer.gradient_clip_val)
        clip = [f"            nn.utils.{name}(model.parameters(), {value})"]
    drop = ", drop_last=True" if data.drop_last else ""
    lines = [
        *loss,
        "",
        "",
        "def train():",
        f"    torch.manual_seed({config.seed})",
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    # Step 1: a network with learnable weights is defined.",
        f"    model = {class_name}().to(device)",
        *_comment(f"Put your images here, normalised by {_normalisation(data.mean, data.std)}."),
        f"    images = torch.randn(1024, {shape})",
        f"    labels = torch.randint({data.class_count}, (1024,))",
        "    dataset = TensorDataset(images, labels)",
        f"    loader = DataLoader(dataset, batch_size={data.batch_size}, shuffle=True{drop})",
        *criterion,
        *optimizer,
        *schedule,
        f"    for epoch in range({trainer.max_epochs}):",
        "        model.train()",
        "        # Step 2: the dataset's batches are iterated.",
        "        for images, labels in loader:",
        "            images, labels = images.to(device), labels.to(device)",
        "            # Step 3: the network processes a batch.",
        "            logits = model(images)",
        "            # Step 4: the loss measures how far the logits are from the targets.",
        *fit(f"loss = {shown}", 12),
        "            # Step 5: gradients are propagated back to the weights.",
        "            optimizer.zero_grad()",
        "            loss.backward()",
        *clip,
        "            # Step 6: the weights are updated.",
        "            optimizer.step()",
        *(["            scheduler.step()"] if schedule else []),
        '        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")',
    ]
    if left_out:
        at = lines.index("def train():") + 1
        lines[at:at] = _comment(f"This loop leaves out: {', '.join(left_out)}.")
    return lines


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="    # ", subsequent_indent="    # ")


def _normalisation(mean: object, std: object) -> str:
    assert isinstance(mean, list | tuple)
    assert isinstance(std, list | tuple)
    if len(mean) == 1:
        return f"(pixels / 255 - {mean[0]}) / {std[0]}"
    return f"(pixels / 255 - mean) / std, with {literal(mean)} and {literal(std)}"


def _changed(known: object, arguments: Mapping[str, object], *always: str) -> str:
    """Return the arguments that differ from the defaults of a class or function."""
    parameters = inspect.signature(known).parameters  # type: ignore[arg-type]

    def plain(value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    given = [
        f"{key}={literal(value)}"
        for key, value in arguments.items()
        if key in always or key not in parameters or plain(value) != plain(parameters[key].default)
    ]
    return ", ".join(given)


def _optimizer(config: Config) -> tuple[list[str], list[str]]:
    chosen, left_out = config.optimizer, []
    left_out += [f"optimizer.{key}" for key in sorted(GROUPING) if getattr(chosen, key)]
    builder, arguments = chosen.builder, chosen.arguments
    name, comment = f"torch.optim.{builder.__name__}", []
    if isinstance(chosen, Muon):
        comment = [
            "    # convtrain updates filters and matrices by torch.optim.Muon, not by this.",
        ]
        name, builder = "torch.optim.AdamW", torch.optim.AdamW
        arguments = {k.removeprefix("adamw_"): v for k, v in arguments.items() if k[:6] == "adamw_"}
    elif isinstance(chosen, CustomOptimizer) and not chosen.target.startswith("torch.optim."):
        return [
            f"    # convtrain: optimizer._target_={chosen.target}",
            "    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)",
        ], [*left_out, f"optimizer._target_={chosen.target}"]
    given = _changed(builder, arguments, "lr")
    text = f"optimizer = {name}({', '.join(filter(None, ['model.parameters()', given]))})"
    return [*comment, *fit(text, 4)], left_out


# --- the learning rate ----------------------------------------------------------------------------

FACTORS = {
    "cosine": "(1 + math.cos(math.pi * step / steps)) / 2",
    "linear": "1 - step / steps",
    "polynomial": "(1 - step / steps) ** {power}",
    "exponential": "{gamma} ** (step / len(loader))",
    "step": "{gamma} ** (step // ({step_epochs} * len(loader)))",
    "none": "1.0",
}
"""The factor of the learning rate in a step after the warm-up."""


def _schedule(config: Config) -> tuple[list[str], list[str]]:
    """Return the statements, and what of the schedule is left out."""
    chosen, values = config.scheduler, config.scheduler.arguments
    total = f"{config.trainer.max_epochs} * len(loader)"
    schedules, left_out = "torch.optim.lr_scheduler", [f"scheduler={chosen.name}"]
    lr = literal(getattr(config.optimizer, "lr", None))
    if chosen.name == "onecycle":
        given = _changed(torch.optim.lr_scheduler.OneCycleLR, values)
        inside = f"optimizer, max_lr={lr}, total_steps={total}"
        text = ", ".join(filter(None, [inside, given, "cycle_momentum=False"]))
        return fit(f"scheduler = {schedules}.OneCycleLR({text})", 4), []
    warmup = values.pop("warmup_epochs", 0.0)
    if chosen.name == "cosine_restarts" and not warmup:
        first = f"T_0=max(round({literal(values['t_0'])} * len(loader)), 1)"
        more = [f"T_mult={values['t_mult']}"] if values["t_mult"] != 1 else []
        if values["final_fraction"]:
            more.append(f"eta_min={lr} * {literal(values['final_fraction'])}")
        text = ", ".join(["optimizer", first, *more])
        return fit(f"scheduler = {schedules}.CosineAnnealingWarmRestarts({text})", 4), []
    if chosen.name not in FACTORS:
        return [], left_out
    if chosen.name == "none" and not warmup:
        return [], []
    factor = FACTORS[chosen.name].format(**values)
    if last := values.get("final_fraction"):
        factor = f"{last} + {literal(1 - last)} * " + (  # type: ignore[operator]
            factor if chosen.name == "cosine" else f"({factor})"
        )
    lines = ["", "    def factor(step):  # of the learning rate"]
    if warmup:
        lines += [
            f"        warmup = round({literal(warmup)} * len(loader))",
            "        if step < warmup:",
            "            return (step + 1) / (warmup + 1)",
        ]
        if re.search(r"\bsteps?\b", factor):
            lines.append("        step = step - warmup")
    if re.search(r"\bsteps\b", factor):
        lines.append(f"        steps = {total}{' - warmup' if warmup else ''}")
    lines += [f"        return {factor}", ""]
    return [*lines, f"    scheduler = {schedules}.LambdaLR(optimizer, factor)"], []


# --- the loss -------------------------------------------------------------------------------------

FOCAL = """

def focal_loss(logits, labels{weights}):
    # Cross entropy times (1 - p)^gamma, where p is the probability of the answer.
    targets = F.one_hot(labels, logits.shape[1]).float()
"""
SOFTMAX = """    log_p = F.log_softmax(logits, dim=1)
    losses = -targets * (1 - log_p.exp()) ** {gamma} * log_p
    return {losses}.sum(1).mean()"""
SIGMOID = """    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    has = -targets * log_q.exp() ** {gamma} * log_p
    lacks = -(1 - targets) * log_p.exp() ** {gamma} * log_q
    return {losses}.mean()"""


def _loss(config: Config) -> tuple[list[str], str]:
    """Return what defines the loss, and its value of ``logits`` and ``labels``, or its module."""
    chosen, values = config.loss, config.loss.arguments
    one_hot = f"F.one_hot(labels, {config.data.class_count}).float()"
    is_weighted = isinstance(chosen, WeightedLoss) and chosen.class_weights is not None
    weights = ", class_weights" if is_weighted else ""
    each, mean = (f'{weights}, reduction="none"', ".mean()") if is_weighted else ("", "")
    match chosen.name:
        case "cross_entropy":
            given = _changed(torch.nn.functional.cross_entropy, values)
            inside = ", ".join(filter(None, [f"logits, labels{each}", given]))
            return [], f"F.cross_entropy({inside}){mean}"
        case "multi_margin":
            given = _changed(torch.nn.functional.multi_margin_loss, values)
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
                one_hot += f" * (1 - {smoothing}) + {smoothing} / {config.data.class_count}"
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
        text = FOCAL.format(weights=weights)
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


def _class_weights(config: Config) -> list[str]:
    """Return the statement that makes the class weights, if the loss has them."""
    if not isinstance(config.loss, WeightedLoss) or (chosen := config.loss.class_weights) is None:
        return []
    if chosen != "balanced":
        return fit(f"class_weights = torch.tensor({literal(chosen)}, device=device)", 4)
    count = config.data.class_count
    images = f"torch.bincount(labels, minlength={count})"
    return fit(f"class_weights = (len(labels) / ({count} * {images})).to(device)", 4)


def _tensor(value: object) -> str:
    is_tensor = isinstance(value, torch.Tensor)
    return f"torch.tensor({literal(value.tolist())})" if is_tensor else literal(value)  # type: ignore[attr-defined]


def _others(config: Config) -> list[str]:
    """Return the other keys that change the training and that the loop does not follow."""
    trainer, augment = config.trainer, config.augment
    found = []
    if config.data.sampling != "shuffled":
        found.append(f"data.sampling={config.data.sampling}")
    if any(getattr(augment, key) for key in AUGMENTS):
        found.append("augment")
    elif config.data.stored_side is not None and augment.crop_scale:
        found.append(f"augment.crop_scale={literal(augment.crop_scale)}")
    if trainer.accumulate_grad_batches != 1:
        found.append(f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}")
    if trainer.precision not in (32, "32-true"):
        found.append(f"trainer.precision={trainer.precision}")
    if trainer.ema is not None:
        found.append(f"trainer.ema={trainer.ema}")
    if trainer.max_steps is not None:
        found.append(f"trainer.max_steps={trainer.max_steps}")
    return found
