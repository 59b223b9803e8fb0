"""The optimisers, with the arguments of ``torch.optim``."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from convtrain.config.section import Choice

LearningRate = Annotated[
    float, Field(gt=0, le=1e6, description="learning rate, a factor of the gradient")
]
WeightDecay = Annotated[
    float, Field(ge=0, le=1e6, description="weight decay, a factor of the weights")
]
Epsilon = Annotated[
    float,
    Field(ge=1e-30, le=1e6, description="term added to the denominator, in units of the gradient"),
]
Momentum = Annotated[
    float, Field(ge=0, lt=1, description="momentum, the part of a step that is added to the next")
]
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerChoice(Choice):
    """``build`` takes ``params`` as ``torch.optim`` does: parameters, or groups of them."""

    has_fused_kernel: ClassVar[bool] = False  # takes fused=True, on a CPU and on CUDA


class SGD(OptimizerChoice):
    builds = "torch.optim:SGD"
    has_fused_kernel = True
    name: Literal["sgd"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    momentum: Momentum
    nesterov: bool = Field(description="Nesterov momentum")
    weight_decay: WeightDecay


class Adam(OptimizerChoice):
    builds = "torch.optim:Adam"
    has_fused_kernel = True
    name: Literal["adam"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    betas: list[Beta] = Field(
        min_length=2,
        max_length=2,
        description="decay of the averages of the gradient and of its square, 0-1",
    )
    eps: Epsilon
    weight_decay: WeightDecay


class AdamW(Adam):
    builds = "torch.optim:AdamW"
    name: Literal["adamw"] = Field(description="optimiser of torch.optim")  # type: ignore[assignment]


class RMSprop(OptimizerChoice):
    builds = "torch.optim:RMSprop"
    name: Literal["rmsprop"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    alpha: float = Field(ge=0, lt=1, description="decay of the averaged squared gradient, 0-1")
    eps: Epsilon
    momentum: Momentum
    weight_decay: WeightDecay


Optimizer = Annotated[SGD | Adam | AdamW | RMSprop, Field(discriminator="name")]
