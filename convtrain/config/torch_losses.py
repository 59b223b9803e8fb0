"""The losses of torch.nn: which of them classify images, and what to use instead of the others."""

from typing import Literal, NamedTuple

PACKAGE = "torch.nn."


class Takes(NamedTuple):
    """What a loss of torch.nn is called with.

    ``indices``: class indices as they are. ``floats``: 0 and 1 for each class, which class indices
    become. ``signs``: the same as -1 and 1. ``log_softmax``: of the logits, in their place.
    """

    targets: Literal["indices", "floats", "signs"]
    fractions: bool = True  # whether targets may be fractions of classes, as mixup makes them
    log_softmax: bool = False

    @property
    def labels(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.targets != "indices"


KNOWN = {
    "BCEWithLogitsLoss": Takes("floats"),
    "CrossEntropyLoss": Takes("indices"),
    "HuberLoss": Takes("floats"),
    "L1Loss": Takes("floats"),
    "MSELoss": Takes("floats"),
    "MultiLabelSoftMarginLoss": Takes("floats"),
    "MultiMarginLoss": Takes("indices", fractions=False),
    "NLLLoss": Takes("indices", fractions=False, log_softmax=True),
    "SmoothL1Loss": Takes("floats"),
    "SoftMarginLoss": Takes("signs", fractions=False),
}

_PAIRS = "compares pairs or triples of inputs, not logits with targets: derive a loss of your own"
_LAYER = "is the last layer as well, so that the network would give no logits: end it in Linear"
REFUSED = {
    "AdaptiveLogSoftmaxWithLoss": f"{_LAYER}, and type loss=cross_entropy",
    "BCELoss": "takes probabilities: type torch.nn.BCEWithLogitsLoss, or loss=bce",
    "CTCLoss": "takes sequences and their lengths: derive a loss of your own",
    "CosineEmbeddingLoss": _PAIRS,
    "GaussianNLLLoss": "takes a variance as well: derive a loss of your own",
    "HingeEmbeddingLoss": _PAIRS,
    "KLDivLoss": "is, for classes, cross entropy: type torch.nn.CrossEntropyLoss",
    "LinearCrossEntropyLoss": f"{_LAYER}, and type loss=cross_entropy",
    "MarginRankingLoss": _PAIRS,
    "MultiLabelMarginLoss": "takes lists of class indices: type torch.nn.MultiMarginLoss for a "
    "class an image, or torch.nn.MultiLabelSoftMarginLoss for several",
    "PoissonNLLLoss": "takes counts: type torch.nn.CrossEntropyLoss, or derive a loss of your own",
    "TripletMarginLoss": _PAIRS,
    "TripletMarginWithDistanceLoss": _PAIRS,
}
"""What to use instead of each."""


def loss_refusal(target: str) -> str | None:
    """Return why a class of torch.nn is refused as a loss and what to do, or None."""
    name = target.rpartition(".")[2]
    if not target.startswith(PACKAGE) or name in KNOWN:
        return None
    reason = REFUSED.get(name, f"is no loss; torch.nn has {', '.join(KNOWN)}")
    return f"does not fit here: {reason}" if name in REFUSED else reason


def known(target: str) -> Takes | None:
    """Return what a loss of torch.nn takes; None for a loss of another package."""
    return KNOWN.get(target.rpartition(".")[2]) if target.startswith(PACKAGE) else None
