"""Normalization: subtract a mean, divide by a standard deviation, scale and shift."""

from functools import partial

from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from convtrain.layers.entry import Entry, channels, check_rank, features


def batch_norm(
    ranks: tuple[int, ...],
    input,
    *,
    weight,
    bias,
    running_mean,
    running_var,
    num_batches_tracked,
    momentum,
    eps,
    track_running_stats,
    training,
):
    """Normalize each channel over the batch; in evaluation, by the running statistics.

    In training, it updates the running statistics in place:
    ``running = (1 - momentum) * running + momentum * batch``, or the mean over all batches so far
    if ``momentum`` is None.
    """
    check_rank(input, *ranks)
    factor = 0.0 if momentum is None else momentum
    if training and track_running_stats and num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None:
            factor = 1.0 / float(num_batches_tracked)
    by_batch = training or (running_mean is None and running_var is None)
    if training and not track_running_stats:
        running_mean = running_var = None
    return F.batch_norm(input, running_mean, running_var, weight, bias, by_batch, factor, eps)


def instance_norm(
    rank: int,
    input,
    *,
    weight,
    bias,
    running_mean,
    running_var,
    momentum,
    eps,
    track_running_stats,
    training,
):
    """Normalize each channel of each example; an input of ``rank - 1`` has no batch."""
    check_rank(input, rank - 1, rank)
    output = F.instance_norm(
        input if input.dim() == rank else input.unsqueeze(0),
        running_mean,
        running_var,
        weight,
        bias,
        training or not track_running_stats,
        0.0 if momentum is None else momentum,
        eps,
    )
    return output if input.dim() == rank else output.squeeze(0)


NUM = {"num_features": channels}
SHAPE = {"normalized_shape": features}

LAYERS = (
    Entry(nn.BatchNorm1d, partial(batch_norm, (2, 3)), infer=NUM),
    Entry(nn.BatchNorm2d, partial(batch_norm, (4,)), infer=NUM),
    Entry(nn.BatchNorm3d, partial(batch_norm, (5,)), infer=NUM),
    Entry(nn.SyncBatchNorm, functional_call, infer=NUM),
    Entry(nn.GroupNorm, F.group_norm, infer={"num_channels": channels}),
    Entry(nn.InstanceNorm1d, partial(instance_norm, 3), infer=NUM),
    Entry(nn.InstanceNorm2d, partial(instance_norm, 4), infer=NUM),
    Entry(nn.InstanceNorm3d, partial(instance_norm, 5), infer=NUM),
    Entry(nn.LayerNorm, F.layer_norm, infer=SHAPE),
    Entry(nn.RMSNorm, F.rms_norm, infer=SHAPE),
    Entry(nn.LocalResponseNorm, F.local_response_norm),
    Entry(nn.CrossMapLRN2d, functional_call),
)
