"""The optimisers, with the arguments of ``torch.optim``."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, Section, Text
from convtrain.config.signatures import takes
from convtrain.config.targets import Target
from convtrain.config.torch_classes import OPTIMIZERS, refusal
from convtrain.config.trust import OPTIMIZER

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
Coefficient = Annotated[float, Field(ge=-1e6, le=1e6)]


def allow_omissions(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Let a section omit its options but ``lr``; they are then the defaults of what it builds."""
    try:
        return validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        wrong = [e for e in found if e["type"] != "missing" or e["loc"][-1] in ("lr", "_target_")]
        if wrong or not isinstance(value, dict):
            raise ValidationError.from_exception_data(error.title, wrong) from None  # type: ignore[arg-type]
        return section_named(value["name"]).model_construct(set(value), **value)


def without_omissions(section: "OptimizerChoice") -> dict[str, object]:
    """Return the options that were given, as they were typed."""
    fields, given = type(section).model_fields, section.model_fields_set
    return {(fields[n].alias if n in fields else n) or n: v for n, v in section if n in given}


class ParameterGroup(Section):
    """Parameters by name, and what differs for them; docs/parameter-groups.md.

    Every other key is an option of the group's optimiser, which
    :mod:`convtrain.config.parameter_groups` checks.
    """

    model_config = ConfigDict(extra="allow")

    match: Text | Annotated[list[Text], Field(min_length=1)]
    name: Text | None = None
    lr: LearningRate | None = None
    lr_scale: Annotated[float, Field(gt=0, le=1e6)] | None = None
    optimizer: (
        Annotated["Optimizer", WrapValidator(allow_omissions), PlainSerializer(without_omissions)]
        | None
    ) = None
    freeze: bool = False

    @property
    def globs(self) -> list[str]:
        return [self.match] if isinstance(self.match, str) else self.match

    @property
    def options(self) -> dict[str, object]:
        """The options of the optimiser that the group sets, apart from its learning rate."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        return self.name or ", ".join(self.globs)


class OptimizerChoice(Choice):
    """``build`` takes ``params`` as ``torch.optim`` does: parameters, or groups of them."""

    has_fused_kernel: ClassVar[bool] = False  # takes fused=True, on a CPU and on CUDA

    groups: list[ParameterGroup] = Field(
        default=[],
        description="parameters with options of their own, the first match wins: "
        "docs/parameter-groups.md",
    )
    no_decay: list[Text] = Field(
        default=[], description="parameters without weight decay: bias, norm, or globs of names"
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="factor of the learning rate from a layer to the one before it",
    )

    @property
    def arguments(self) -> dict[str, object]:
        return {key: v for key, v in super().arguments.items() if key not in GROUPING}


GROUPING = frozenset(OptimizerChoice.model_fields)
"""Keys that divide the parameters into groups; the optimiser itself does not take them."""


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


class NAdam(Adam):
    builds = "torch.optim:NAdam"
    has_fused_kernel = False
    name: Literal["nadam"] = Field(description="optimiser of torch.optim")  # type: ignore[assignment]
    momentum_decay: float = Field(
        ge=0, le=1e6, description="decay of the momentum's warm-up; 0 for none"
    )
    decoupled_weight_decay: bool = Field(description="weight decay as in adamw")


class RAdam(Adam):
    builds = "torch.optim:RAdam"
    has_fused_kernel = False
    name: Literal["radam"] = Field(description="optimiser of torch.optim")  # type: ignore[assignment]
    decoupled_weight_decay: bool = Field(description="weight decay as in adamw")


class Adagrad(OptimizerChoice):
    builds = "torch.optim:Adagrad"
    name: Literal["adagrad"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    lr_decay: float = Field(
        ge=0, le=1e6, description="decay of the rate in each step, to lr / (1 + steps * lr_decay)"
    )
    initial_accumulator_value: float = Field(
        ge=0, le=1e6, description="start of the sum of squares, in squared units of the gradient"
    )
    eps: Epsilon
    weight_decay: WeightDecay


class Adafactor(OptimizerChoice):
    builds = "torch.optim:Adafactor"
    name: Literal["adafactor"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    beta2_decay: float = Field(
        ge=-1e6, le=0, description="exponent: the averages' decay is 1 - step ** beta2_decay"
    )
    eps: list[Epsilon | None] = Field(
        min_length=2,
        max_length=2,
        description="least squared gradient (null: the dtype's eps) and least norm of the weights",
    )
    d: float = Field(
        ge=1, le=1e6, description="largest root mean square of an update, a factor of lr"
    )
    weight_decay: WeightDecay


class Muon(OptimizerChoice):
    """``torch.optim.Muon`` for filters and matrices, AdamW for biases and other vectors."""

    builds = "convtrain.training.muon:Muon"
    has_fused_kernel = True
    name: Literal["muon"] = Field(description="optimiser of torch.optim")
    lr: LearningRate
    momentum: Momentum
    nesterov: bool = Field(description="Nesterov momentum")
    weight_decay: WeightDecay
    ns_coefficients: list[Coefficient] = Field(
        min_length=3, max_length=3, description="each term's factor in a Newton-Schulz step"
    )
    ns_steps: int = Field(ge=1, le=99, description="number of Newton-Schulz steps")
    eps: Epsilon
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = Field(
        description="how lr follows from a matrix's shape; null is original"
    )
    adamw_lr: LearningRate
    adamw_betas: list[Beta] = Field(
        min_length=2, max_length=2, description="decay of the averages in AdamW, 0-1"
    )
    adamw_eps: Epsilon
    adamw_weight_decay: WeightDecay


class CustomOptimizer(OptimizerChoice, Target):
    """An Optimizer of torch's or of one's own, which takes ``params`` as those of torch do."""

    kind = OPTIMIZER
    positional = 1
    name: Literal["custom"] = Field(description="optimiser of torch.optim")

    def mistakes(self) -> Iterator[Mistake]:
        if (reason := refusal(self.builder, OPTIMIZERS)) is not None:
            yield Mistake(f"{self._key}._target_", reason)
        elif not takes(self.builder.step, "closure"):  # type: ignore[attr-defined]
            text = "its step() takes no closure, which computes loss and gradients"
            yield Mistake(f"{self._key}._target_", f"{text}; define step(self, closure=None)")
        else:
            yield from super().mistakes()


Optimizer = Annotated[
    SGD | Adam | AdamW | RMSprop | NAdam | RAdam | Adagrad | Adafactor | Muon | CustomOptimizer,
    Field(discriminator="name"),
]


def section_named(name: object) -> type[OptimizerChoice]:
    """Return the section of the optimiser that has a name."""
    sections: tuple[type[OptimizerChoice], ...] = get_args(get_args(Optimizer)[0])
    return next(s for s in sections if name in get_args(s.model_fields["name"].annotation))


ParameterGroup.model_rebuild()  # it names Optimizer, which is defined after it
