"""Write the training loop: the six steps, with the parts that a configuration adds to them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from convtrain.use.code.averaging import averaging
from convtrain.use.code.expressions import literal
from convtrain.use.code.freezing import freezing
from convtrain.use.code.layout import fit
from convtrain.use.code.loading import training_images
from convtrain.use.code.losses import criterion, loss_value
from convtrain.use.code.optimizing import optimizer, schedule
from convtrain.use.code.parts import Loop, Part, comment


def training_loop(loop: Loop) -> list[str]:
    """Return the lines of ``train()``."""
    config, parts = loop.config, [write(loop) for write in PARTS]

    def lines(place: str) -> Sequence[str]:
        return [line for part in parts for line in getattr(part, place)]

    left_out = lines("left_out")
    return [
        *lines("defined"),
        "",
        "",
        "def train():",
        *(comment(f"This loop leaves out: {', '.join(left_out)}.") if left_out else ()),
        f"    torch.manual_seed({config.seed})",
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    # Step 1: a network with learnable weights is defined.",
        f"    model = {loop.class_name}().to(device)",
        *lines("model"),
        *lines("data"),
        *lines("ready"),
        f"    for epoch in range({config.trainer.max_epochs}):",
        "        model.train()",
        *lines("epoch"),
        "        # Step 2: the dataset's batches are iterated.",
        "        for images, labels in loader:",
        "            images, labels = images.to(device), labels.to(device)",
        "            # Step 3: the network processes a batch.",
        "            logits = model(images)",
        "            # Step 4: the loss measures how far the logits are from the targets.",
        *fit(f"loss = {loss_value(loop)}", 12),
        "            # Step 5: gradients are propagated back to the weights.",
        "            optimizer.zero_grad()",
        "            loss.backward()",
        *lines("updating"),
        "            # Step 6: the weights are updated.",
        "            optimizer.step()",
        *lines("updated"),
        '        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")',
        *lines("end"),
    ]


def start_weights(loop: Loop) -> Part:
    if (weights := loop.config.model.starting_weights) is None:
        return Part()
    where = f"model.weights={Path(weights).name}"
    text = f"{where}: the command above, with --start {loop.start}, writes this file."
    load = f"    model.load_state_dict(torch.load({literal(loop.start)}))"
    return Part(model=[*comment(text), load])


def clipping(loop: Loop) -> Part:
    trainer = loop.config.trainer
    if trainer.gradient_clip_val is None:
        return Part()
    name = "clip_grad_norm_" if trainer.gradient_clip_algorithm == "norm" else "clip_grad_value_"
    given = f"model.parameters(), {literal(trainer.gradient_clip_val)}"
    return Part(updating=[f"            nn.utils.{name}({given})"])


def others(loop: Loop) -> Part:
    """Name the other keys that change the training and that the loop does not follow."""
    trainer = loop.config.trainer
    keys = {"accumulate_grad_batches": (1,), "precision": (32, "32-true"), "max_steps": (None,)}
    values = {
        key: getattr(trainer, key)
        for key, usual in keys.items()
        if getattr(trainer, key) not in usual
    }
    return Part(left_out=[f"trainer.{key}={value}" for key, value in values.items()])


PARTS: Sequence[Callable[[Loop], Part]] = (
    start_weights, training_images, criterion, optimizer, schedule, freezing, averaging, clipping,
    others,
)  # fmt: skip
"""What adds lines to the loop, in the order of their lines."""
