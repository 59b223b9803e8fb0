"""When to record what, and what it will take on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from convtrain.text import matches


@dataclass(frozen=True)
class Sampling:
    """The first ``first_n_steps`` steps, and every ``every_n_steps``-th; steps count from 1."""

    every_n_steps: int = 1
    first_n_steps: int = 0

    def __call__(self, step: int) -> bool:
        return step <= self.first_n_steps or step % self.every_n_steps == 0

    def count(self, steps: int) -> int:
        """How many of the first ``steps`` steps are taken."""
        first = min(self.first_n_steps, steps)
        return first + steps // self.every_n_steps - first // self.every_n_steps

    def thinned(self) -> "Sampling":
        return replace(self, every_n_steps=2 * self.every_n_steps)


@dataclass(frozen=True)
class Plan:
    """What is recorded of which parameters, and when; None stands for never.

    Attributes:
        norms: the L2 norm of each gradient.
        statistics: mean, deviation, extremes, zeros, update ratio and cosine of each gradient.
        distributions: histograms, the gradient of the input, values and gradients of each layer's
            output, filters, and the graph of grad_fns.
        tensors: whole gradients, of the parameters that match ``tensor_names``.
        include, exclude: globs over parameter names. The total norm counts all parameters.
    """

    norms: Sampling | None = field(default_factory=Sampling)
    statistics: Sampling | None = None
    distributions: Sampling | None = None
    tensors: Sampling | None = None
    tensor_names: tuple[str, ...] = ("*",)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def due(self, step: int) -> frozenset[str]:
        """Return the names of what is recorded at a step."""
        always, sampled = self._when
        return always.union([n for n, sampling in sampled if sampling(step)]) if sampled else always

    @cached_property
    def _when(self) -> tuple[frozenset[str], list[tuple[str, Sampling]]]:
        sampled = [(n, s) for n, s in self.samplings.items() if s.every_n_steps > 1]
        return frozenset(self.samplings).difference(n for n, _ in sampled), sampled

    @cached_property
    def samplings(self) -> dict[str, Sampling]:
        found = {name: getattr(self, name) for name in DETAILS}
        return {name: sampling for name, sampling in found.items() if sampling is not None}

    def selects(self, name: str) -> bool:
        return matches(name, self.include) and not matches(name, self.exclude)

    def thinned(self, detail: str, steps: int) -> "Plan":
        """Return the plan with half as many samples of a detail, without it where that is none."""
        thinner = self.samplings[detail].thinned()
        kept = thinner if thinner.every_n_steps <= steps else None
        return replace(self, **{detail: kept})  # type: ignore[arg-type]


DETAILS = ("norms", "statistics", "distributions", "tensors")
"""What may be recorded, from the cheapest to the dearest."""


@dataclass(frozen=True)
class Sizes:
    """What the size of a record depends on.

    Attributes:
        parameters, layers: how many of them are recorded.
        values: the number of values of each parameter, by name.
    """

    parameters: int
    layers: int = 0
    values: Mapping[str, int] = field(default_factory=dict)


# Bytes of a compressed part, as measured: a frame that each part has, and what each row adds.
STEPS = 1670, 31
NAME = 10.0  # a parameter's or layer's name, in each part
NORM = 540, 4.3
STATISTICS = 970, 23.5  # beside the norm's
LAYERS = 1650, 41
HISTOGRAMS = 1600, 29
DESCRIBED = 100  # a parameter in parameters.json, or a layer in the graph of grad_fns


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        steps: optimiser steps.
        rows_per_flush: rows in memory before they are written.
        saves: checkpoints, before each of which the rows are written too.
    """

    steps: int
    rows_per_flush: int = 50
    saves: int = 0


def forecast(plan: Plan, sizes: Sizes, length: Length) -> int:
    """Return about how many bytes the record of a run takes on disk."""
    count = {name: sampling.count(length.steps) for name, sampling in plan.samplings.items()}
    rows = max(count.values(), default=0)
    if not rows:
        return 0
    tensors, statistics = count.get("tensors", 0), count.get("statistics", 0)
    parts = min(rows, -(-rows // length.rows_per_flush) + length.saves + tensors)
    parameters = sizes.parameters
    total = parts * (STEPS[0] + NORM[0] + NAME * parameters) + DESCRIBED * parameters
    total += rows * (STEPS[1] + NORM[1] * parameters)
    total += parts * STATISTICS[0] * (plan.statistics is not None)
    total += statistics * STATISTICS[1] * parameters
    if sampled := count.get("distributions", 0):
        pieces = min(sampled, parts)
        total += pieces * (LAYERS[0] + HISTOGRAMS[0] + NAME * (parameters + sizes.layers))
        total += sampled * (LAYERS[1] * sizes.layers + HISTOGRAMS[1] * parameters)
        total += DESCRIBED * sizes.layers
    whole = [n for name, n in sizes.values.items() if matches(name, plan.tensor_names)]
    return round(total + tensors * (4 * sum(whole) + DESCRIBED * len(whole)))


def fit(plan: Plan, sizes: Sizes, length: Length, *, max_bytes: int) -> tuple[Plan, int]:
    """Thin the plan, its dearest detail first, until its forecast keeps within ``max_bytes``.

    Returns:
        the plan and its forecast in bytes.
    """
    size = forecast(plan, sizes, length)
    while size > max_bytes and plan.samplings:
        *_, dearest = plan.samplings
        plan = plan.thinned(dearest, length.steps)
        size = forecast(plan, sizes, length)
    return plan, size


def in_words(plan: Plan, wanted: Plan | None = None) -> str:
    """Say what is recorded: ``norms at every step, distributions at every 50th step``.

    Args:
        wanted: the plan to begin with; what it had and ``plan`` has not is recorded ``never``.
    """
    when = {name: f"at every {_ordinal(s)}" for name, s in plan.samplings.items()}
    names = (wanted or plan).samplings
    return ", ".join(f"{name} {when.get(name, 'never')}" for name in names)


def size_in_words(count: int) -> str:
    """Return a number of bytes to three digits: ``1.23 MB``."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def _ordinal(sampling: Sampling) -> str:
    number = sampling.every_n_steps
    if number == 1:
        return "step"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending} step"
