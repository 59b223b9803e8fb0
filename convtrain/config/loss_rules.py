"""Rules about the loss: which targets it takes, and its weights."""

from collections.abc import Callable, Iterator

from convtrain.config.data_rules import class_count
from convtrain.config.groups.augment import Augment
from convtrain.config.groups.data import Data
from convtrain.config.groups.loss import CustomLoss, Focal, Loss, WeightedLoss
from convtrain.config.mistakes import Mistake
from convtrain.config.torch_losses import loss_refusal

Mistakes = Iterator[Mistake]


def _mixup(augment: Augment, loss: Loss) -> Mistakes:
    for key in ("mixup", "cutmix"):
        if getattr(augment, key) and not loss.takes_fractions:
            yield Mistake(
                f"augment.{key}",
                f"loss={loss.name} has no place for images of two classes; add augment.{key}=0, "
                f"or choose loss=cross_entropy, nll or mse",
            )


def _several_labels(data: Data, loss: Loss) -> Mistakes:
    if data.is_multi_label:
        yield from several_labels(data, loss)


def several_labels(data: Data, loss: Loss) -> Mistakes:
    """Yield the mistakes of settings that expect one label an image, if images have several."""
    have = f"the images of {data.override} have any number of labels"
    if data.sampling == "balanced":
        text = f"draws each class equally often, and {have}; type data.sampling=shuffled"
        yield Mistake("", f"data.sampling=balanced: {text}")
    if not loss.takes_labels:
        named = loss.where if isinstance(loss, CustomLoss) else f"loss={loss.name}"
        yield Mistake("", f"{named}: expects one class an image, and {have}; type loss=bce")
    elif isinstance(loss, Focal) and loss.form == "softmax":
        text = f"expects one class an image, and {have}; type loss.form=sigmoid"
        yield Mistake("", f"loss.form=softmax: {text}")


def _torch_loss(loss: Loss) -> Mistakes:
    if isinstance(loss, CustomLoss) and (reason := loss_refusal(loss.target)) is not None:
        yield Mistake("loss._target_", reason)


def _class_weights(data: Data, loss: Loss) -> Mistakes:
    if not isinstance(loss, WeightedLoss) or (weights := loss.class_weights) is None:
        return
    key, count = "loss.class_weights", class_count(data)[1]
    if isinstance(loss, Focal) and loss.alpha is not None:
        yield Mistake(key, "cannot be combined with loss.alpha, another weight; leave one out")
    if weights == "balanced" and data.sampling == "balanced":
        text = "data.sampling=balanced draws each class equally often already; leave one out"
        yield Mistake(key, text)
    elif isinstance(weights, list) and count not in (None, len(weights)):
        text = f"has {len(weights)} weights, the data has {count} classes; give one for each"
        yield Mistake(key, text)
    elif isinstance(weights, list) and not any(weights):
        yield Mistake(key, "are all 0, so that nothing is learnt; give one above 0")


def _focal(data: Data, loss: Loss) -> Mistakes:
    if not isinstance(loss, Focal) or loss.alpha is None:
        return
    count = class_count(data)[1]
    if isinstance(loss.alpha, list) == (loss.form == "sigmoid"):
        text = "one number, such as 0.25" if loss.form == "sigmoid" else "a weight for each class"
        yield Mistake("loss.alpha", f"is {text}, with loss.form={loss.form}")
    elif isinstance(loss.alpha, list) and count not in (None, len(loss.alpha)):
        text = f"has {len(loss.alpha)} weights, the data has {count} classes; give one for each"
        yield Mistake("loss.alpha", text)


LOSS_RULES: tuple[Callable[..., Mistakes], ...] = (
    _mixup, _several_labels, _torch_loss, _class_weights, _focal,
)  # fmt: skip
