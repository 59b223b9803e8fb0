"""The plan of a record: what to record, and at which steps."""

from dataclasses import dataclass, replace
from functools import cached_property

from convtrain.config.groups.recorder import Sampling
from convtrain.text import matches

DETAILS = ("norms", "statistics", "distributions", "tensors")
"""The details of a record, from the cheapest to the most expensive."""

EVERY_STEP = Sampling(every_n_steps=1, first_n_steps=0)


@dataclass(frozen=True)
class Plan:
    """What to record of which parameters, and when; None means never.

    Attributes:
        norms: the L2 norm of each gradient.
        statistics: the statistics of each gradient.
        distributions: histograms, the gradient of the input, values and gradients of each layer's
            output, filters, and the graph of grad_fns.
        tensors: whole gradients, of the parameters that match ``tensor_names``.
        include, exclude: globs over parameter names; the total norm counts all parameters.
    """

    norms: Sampling | None = EVERY_STEP
    statistics: Sampling | None = None
    distributions: Sampling | None = None
    tensors: Sampling | None = None
    tensor_names: tuple[str, ...] = ("*",)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    @cached_property
    def samplings(self) -> dict[str, Sampling]:
        """The details that are ever recorded, from the cheapest to the most expensive."""
        found = {name: getattr(self, name) for name in DETAILS}
        return {name: sampling for name, sampling in found.items() if sampling is not None}

    def due(self, step: int) -> frozenset[str]:
        """Return the details to record at a step."""
        return frozenset([name for name, is_due in self.samplings.items() if is_due(step)])

    def selects(self, name: str) -> bool:
        return matches(name, self.include) and not matches(name, self.exclude)

    def with_sampling(self, detail: str, sampling: Sampling | None) -> "Plan":
        return replace(self, **{detail: sampling})  # type: ignore[arg-type]


def describe_plan(plan: Plan, original: Plan | None = None) -> str:
    """Describe a plan: ``norms every step, distributions every 50 steps``.

    A detail that only ``original``, the plan before thinning, has is recorded ``never``.
    """
    numbers = {name: sampling.every_n_steps for name, sampling in plan.samplings.items()}
    when = {name: "every step" if n == 1 else f"every {n} steps" for name, n in numbers.items()}
    return ", ".join(f"{name} {when.get(name, 'never')}" for name in (original or plan).samplings)
