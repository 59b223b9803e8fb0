"""Write the optimiser and the schedule of the learning rate."""

import re

import torch

from convtrain.config.groups.optimizer import GROUPING, CustomOptimizer, Muon
from convtrain.config.schema import Config
from convtrain.use.code.expressions import literal
from convtrain.use.code.layout import fit
from convtrain.use.code.parts import Loop, Part, changed


def optimizer(loop: Loop) -> Part:
    chosen, left_out = loop.config.optimizer, []
    left_out += [f"optimizer.{key}" for key in sorted(GROUPING) if getattr(chosen, key)]
    if all(group.freeze for group in chosen.groups):  # these are written by .freezing
        left_out = [key for key in left_out if key != "optimizer.groups"]
    builder, arguments = chosen.builder, chosen.arguments
    name, comment = f"torch.optim.{builder.__name__}", []
    if isinstance(chosen, Muon):
        comment = [
            "    # convtrain updates filters and matrices by torch.optim.Muon, not by this.",
        ]
        name, builder = "torch.optim.AdamW", torch.optim.AdamW
        arguments = {k.removeprefix("adamw_"): v for k, v in arguments.items() if k[:6] == "adamw_"}
    elif isinstance(chosen, CustomOptimizer) and not chosen.target.startswith("torch.optim."):
        own = f"optimizer._target_={chosen.target}"
        other = "    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)"
        return Part(ready=[f"    # convtrain: {own}", other], left_out=[*left_out, own])
    given = changed(builder, arguments, "lr")
    text = f"optimizer = {name}({', '.join(filter(None, ['model.parameters()', given]))})"
    return Part(ready=[*comment, *fit(text, 4)], left_out=left_out)


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


def schedule(loop: Loop) -> Part:
    if lines := _schedule(loop.config):
        return Part(ready=lines, updated=["            scheduler.step()"])
    name = loop.config.scheduler.name
    return Part(left_out=[] if name == "none" else [f"scheduler={name}"])


def _schedule(config: Config) -> list[str]:
    """Return the statements that make the schedule, if the loop follows it."""
    chosen, values = config.scheduler, config.scheduler.arguments
    total = f"{config.trainer.max_epochs} * len(loader)"
    schedules = "torch.optim.lr_scheduler"
    lr = literal(getattr(config.optimizer, "lr", None))
    if chosen.name == "onecycle":
        given = changed(torch.optim.lr_scheduler.OneCycleLR, values)
        inside = f"optimizer, max_lr={lr}, total_steps={total}"
        text = ", ".join(filter(None, [inside, given, "cycle_momentum=False"]))
        return fit(f"scheduler = {schedules}.OneCycleLR({text})", 4)
    warmup = values.pop("warmup_epochs", 0.0)
    if chosen.name == "cosine_restarts" and not warmup:
        first = f"T_0=max(round({literal(values['t_0'])} * len(loader)), 1)"
        more = [f"T_mult={values['t_mult']}"] if values["t_mult"] != 1 else []
        if values["final_fraction"]:
            more.append(f"eta_min={lr} * {literal(values['final_fraction'])}")
        text = ", ".join(["optimizer", first, *more])
        return fit(f"scheduler = {schedules}.CosineAnnealingWarmRestarts({text})", 4)
    if chosen.name not in FACTORS:
        return []
    if chosen.name == "none" and not warmup:
        return []
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
        # The warm-up may take all steps.
        steps = f"max({total} - warmup, 1)" if warmup else total
        lines.append(f"        steps = {steps}")
    lines += [f"        return {factor}", ""]
    return [*lines, f"    scheduler = {schedules}.LambdaLR(optimizer, factor)"]
