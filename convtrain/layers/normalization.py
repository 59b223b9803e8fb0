"""Normalization: subtract a mean, divide by a deviation, scale and shift by learned numbers."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, channels, features


def batch_norm(
    input,
    weight,
    bias,
    running_mean,
    running_var,
    num_batches_tracked,
    *,
    momentum,
    eps,
    track_running_stats,
    training,
):
    """Normalize each channel over the batch; in evaluation, by the running statistics.

    In training the running statistics are buffers that this call moves:
    ``running = (1 - momentum) * running + momentum * batch``, or the plain mean of all batches so
    far where ``momentum`` is None.
    """
    average_factor = 0.0 if momentum is None else momentum
    if training and track_running_stats and num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None:
            average_factor = 1.0 / float(num_batches_tracked)
    by_batch = training or (running_mean is None and running_var is None)
    tracked = not training or track_running_stats
    return F.batch_norm(
        input,
        running_mean if tracked else None,
        running_var if tracked else None,
        weight,
        bias,
        by_batch,
        average_factor,
        eps,
    )


def layer_norm(input, weight, bias, *, normalized_shape, eps):
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(input, weight, bias, *, num_groups, eps):
    return F.group_norm(input, num_groups, weight, bias, eps)


LAYERS = (
    Entry(nn.BatchNorm1d, batch_norm, infer={"num_features": channels}),
    Entry(nn.BatchNorm2d, batch_norm, infer={"num_features": channels}),
    Entry(nn.LayerNorm, layer_norm, infer={"normalized_shape": features}),
    Entry(nn.GroupNorm, group_norm, infer={"num_channels": channels}),
)
