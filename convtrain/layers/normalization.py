"""Normalization: subtract a mean, divide by a deviation, scale and shift by learned numbers."""

from functools import partial

from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules import _functions

from convtrain.layers.entry import Entry, channels, features


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

    In training the running statistics are buffers that this call moves:
    ``running = (1 - momentum) * running + momentum * batch``, or the plain mean of all batches so
    far where ``momentum`` is None.

    Raises:
        ValueError: the input's number of dimensions is not among ``ranks``.
    """
    _check_rank(input, ranks)
    share = _count_batch(training and track_running_stats, num_batches_tracked, momentum)
    by_batch = training or (running_mean is None and running_var is None)
    if training and not track_running_stats:
        running_mean = running_var = None
    return F.batch_norm(input, running_mean, running_var, weight, bias, by_batch, share, eps)


def sync_batch_norm(
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
    process_group,
):
    """Like :func:`batch_norm`, over the batches of all processes together.

    Raises:
        ValueError: the input has one dimension, or lies on the CPU while processes are to share.
    """
    _check_rank(input, range(2, 10))
    alone = not (training and distributed.is_available() and distributed.is_initialized())
    group = None if alone else process_group or distributed.group.WORLD
    if alone or distributed.get_world_size(group) == 1:
        return batch_norm(
            (input.dim(),),
            input,
            weight=weight,
            bias=bias,
            running_mean=running_mean,
            running_var=running_var,
            num_batches_tracked=num_batches_tracked,
            momentum=momentum,
            eps=eps,
            track_running_stats=track_running_stats,
            training=training,
        )
    if input.device.type == "cpu":
        raise ValueError("SyncBatchNorm synchronizes on accelerators; the input is on the CPU")
    share = _count_batch(track_running_stats, num_batches_tracked, momentum)
    if not track_running_stats:
        running_mean = running_var = None
    return _functions.SyncBatchNorm.apply(
        input,
        weight,
        bias,
        running_mean,
        running_var,
        eps,
        share,
        group,
        distributed.get_world_size(group),
    )


def _count_batch(counts: bool, num_batches_tracked: Tensor | None, momentum: float | None) -> float:
    """Count the batch if it counts, and return its share of the running statistics."""
    if counts and num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None:
            return 1.0 / float(num_batches_tracked)
    return 0.0 if momentum is None else momentum


def _check_rank(input: Tensor, ranks: tuple[int, ...] | range) -> None:
    if input.dim() not in ranks:
        expected = " or ".join(map(str, ranks)) if isinstance(ranks, tuple) else "2 or more"
        raise ValueError(f"expected an input of {expected} dimensions, got {input.dim()}")


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
    """Normalize each channel of each example by itself.

    Raises:
        ValueError: the input has neither ``rank`` dimensions nor, without a batch, one less.
    """
    _check_rank(input, (rank - 1, rank))
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


def cross_map_lrn2d(input: Tensor, *, size, alpha, beta, k) -> Tensor:
    return _functions.CrossMapLRN2d.apply(input, size, alpha, beta, k)


NUM = {"num_features": channels}
SHAPE = {"normalized_shape": features}

LAYERS = (
    Entry(nn.BatchNorm1d, partial(batch_norm, (2, 3)), infer=NUM),
    Entry(nn.BatchNorm2d, partial(batch_norm, (4,)), infer=NUM),
    Entry(nn.BatchNorm3d, partial(batch_norm, (5,)), infer=NUM),
    Entry(nn.SyncBatchNorm, sync_batch_norm, infer=NUM),
    Entry(nn.GroupNorm, F.group_norm, infer={"num_channels": channels}),
    Entry(nn.InstanceNorm1d, partial(instance_norm, 3), infer=NUM),
    Entry(nn.InstanceNorm2d, partial(instance_norm, 4), infer=NUM),
    Entry(nn.InstanceNorm3d, partial(instance_norm, 5), infer=NUM),
    Entry(nn.LayerNorm, F.layer_norm, infer=SHAPE),
    Entry(nn.RMSNorm, F.rms_norm, infer=SHAPE),
    Entry(nn.LocalResponseNorm, F.local_response_norm),
    Entry(nn.CrossMapLRN2d, cross_map_lrn2d),
)
