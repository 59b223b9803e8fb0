"""Write the average of the weights with which the network predicts: ``trainer.ema``."""

from convtrain.use.code.expressions import literal
from convtrain.use.code.parts import Loop, Part


def averaging(loop: Loop) -> Part:
    """Write the rule of :class:`convtrain.training.weight_average.WeightAverage`."""
    if (ema := loop.config.trainer.ema) is None:
        return Part()
    is_other = loop.config.network.has_own_layers  # which may have any buffers
    return Part(
        left_out=["trainer.ema without the buffers of your own layers"] * is_other,
        ready=[
            "    average, updates = {k: v.clone() for k, v in model.state_dict().items()}, 0",
        ],
        updated=[
            "            # The average forgets the first weights within few steps.",
            "            updates += 1",
            f"            decay = min({literal(ema)}, (1 + updates) / (10 + updates))",
            "            for key, value in model.state_dict().items():",
            "                if value.is_floating_point():",
            "                    average[key].lerp_(value, 1 - decay)",
            "                else:",
            "                    average[key].copy_(value)",
        ],
        end=[
            "    model.load_state_dict(average)  # with which it predicts; validate with it, too",
        ],
    )
