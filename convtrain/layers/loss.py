"""Losses: how far the output is from the answer. Those with weights of their own come last."""

from itertools import pairwise

from torch import nn
from torch.nn import functional as F
from torch.nn.modules.adaptive import _ASMoutput

from convtrain.layers.entry import Entry, features


def poisson_nll_loss(input, target, *, log_input, full, eps, reduction):
    return F.poisson_nll_loss(
        input, target, log_input=log_input, full=full, eps=eps, reduction=reduction
    )


def adaptive_log_softmax_with_loss(
    input, target, *, head, tail, cutoffs, shortlist_size, n_classes
) -> _ASMoutput:
    """Frequent classes have an output each, rare ones share clusters (Grave et al., 2016).

    Returns:
        ``output``, the log probability of each target, and ``loss``, their negative mean.

    Raises:
        RuntimeError: the shapes do not fit, or a target is not below ``n_classes``.
    """
    if target.dim() > 1 or input.dim() != target.dim() + 1 or input.shape[:-1] != target.shape:
        raise RuntimeError(
            f"expected an input of (N, in_features) and a target of (N), got "
            f"{tuple(input.shape)} and {tuple(target.shape)}"
        )
    batched = target.dim() == 1
    if not batched:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
    output, rows_seen = input.new_zeros(len(target)), 0
    in_head = target.new_empty(len(target))
    for cluster, (low, high) in enumerate(pairwise([0, *cutoffs])):
        mask = (target >= low) & (target < high)
        rows = mask.nonzero().squeeze()
        if rows.numel() == 0:
            continue
        if cluster == 0:
            in_head.index_copy_(0, rows, target[mask])
        else:
            in_head.index_fill_(0, rows, shortlist_size + cluster - 1)
            scores = list(tail)[cluster - 1](input.index_select(0, rows))
            within = F.log_softmax(scores, dim=1).gather(1, (target[mask] - low).unsqueeze(1))
            output.index_copy_(0, rows, within.squeeze(1))
        rows_seen += rows.numel()
    if rows_seen != len(target):
        raise RuntimeError(
            f"targets must be in [0, {n_classes - 1}], "
            f"got [{target.min().item()}, {target.max().item()}]"
        )
    log_head = F.log_softmax(head(input), dim=1)
    output += log_head.gather(1, in_head.unsqueeze(1)).squeeze()
    loss = (-output).mean()
    return _ASMoutput(output if batched else output.squeeze(0), loss)


def linear_cross_entropy(
    input,
    target,
    *,
    linear,
    weight,
    num_classes,
    out_features,
    reduction,
    ignore_index,
    label_smoothing,
    options,
):
    """Linear layer and cross entropy in one, without holding the scores of all classes at once."""
    return F.linear_cross_entropy(
        input,
        linear.weight.reshape((num_classes, *out_features, linear.in_features)),
        target,
        linear_bias=(
            None if linear.bias is None else linear.bias.reshape((num_classes, *out_features))
        ),
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=options,
    )


IN = {"in_features": features}

LAYERS = (
    Entry(nn.L1Loss, F.l1_loss),
    Entry(nn.MSELoss, F.mse_loss),
    Entry(nn.CrossEntropyLoss, F.cross_entropy),
    Entry(nn.CTCLoss, F.ctc_loss),
    Entry(nn.NLLLoss, F.nll_loss),
    Entry(nn.PoissonNLLLoss, poisson_nll_loss),
    Entry(nn.GaussianNLLLoss, F.gaussian_nll_loss),
    Entry(nn.KLDivLoss, F.kl_div),
    Entry(nn.BCELoss, F.binary_cross_entropy),
    Entry(nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits),
    Entry(nn.MarginRankingLoss, F.margin_ranking_loss),
    Entry(nn.HingeEmbeddingLoss, F.hinge_embedding_loss),
    Entry(nn.MultiLabelMarginLoss, F.multilabel_margin_loss),
    Entry(nn.HuberLoss, F.huber_loss),
    Entry(nn.SmoothL1Loss, F.smooth_l1_loss),
    Entry(nn.SoftMarginLoss, F.soft_margin_loss),
    Entry(nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss),
    Entry(nn.CosineEmbeddingLoss, F.cosine_embedding_loss),
    Entry(nn.MultiMarginLoss, F.multi_margin_loss),
    Entry(nn.TripletMarginLoss, F.triplet_margin_loss),
    Entry(nn.TripletMarginWithDistanceLoss, F.triplet_margin_with_distance_loss),
    Entry(nn.AdaptiveLogSoftmaxWithLoss, adaptive_log_softmax_with_loss, infer=IN),
    # Newer than the oldest torch supported.
    *(
        (Entry(nn.LinearCrossEntropyLoss, linear_cross_entropy, infer=IN),)
        if hasattr(nn, "LinearCrossEntropyLoss")
        else ()
    ),
)
