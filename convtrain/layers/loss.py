"""Losses. The last two have weights of their own."""

from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from convtrain.layers.entry import Entry, features


def poisson_nll_loss(input, target, *, log_input, full, eps, reduction):
    return F.poisson_nll_loss(
        input, target, log_input=log_input, full=full, eps=eps, reduction=reduction
    )


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
    """Compute a linear layer and cross entropy without holding all logits at once."""
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
    Entry(nn.AdaptiveLogSoftmaxWithLoss, functional_call, infer=IN),
    # Absent from the oldest supported torch.
    *(
        (Entry(nn.LinearCrossEntropyLoss, linear_cross_entropy, infer=IN),)
        if hasattr(nn, "LinearCrossEntropyLoss")
        else ()
    ),
)
