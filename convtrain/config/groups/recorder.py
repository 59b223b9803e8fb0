"""The gradient recorder: what it records, when, and how much."""

from typing import Literal

from pydantic import Field

from convtrain.config.section import Count, Section, Text, Whole


class Sampling(Section):
    every_n_steps: Count = Field(description="optimiser steps between two recorded steps")
    first_n_steps: Whole = Field(description="optimiser steps at the start, all recorded")

    def __call__(self, step: int) -> bool:
        return step <= self.first_n_steps or step % self.every_n_steps == 0

    def count(self, steps: int) -> int:
        """Return how many of the first ``steps`` steps are recorded; steps count from 1."""
        first = min(self.first_n_steps, steps)
        return first + steps // self.every_n_steps - first // self.every_n_steps


class Recorder(Section):
    name: Literal["off", "norms", "stats", "full", "debug"] = Field(
        description="tier: how much of the gradients is recorded"
    )
    norms: Sampling | None = Field(description="when norms are recorded")
    statistics: Sampling | None = Field(description="when statistics are recorded")
    distributions: Sampling | None = Field(description="when distributions are recorded")
    tensors: Sampling | None = Field(description="when whole gradients are recorded")
    tensor_names: list[Text] = Field(description="globs over tensors that are recorded whole")
    include: list[Text] = Field(description="globs over parameter names that are recorded")
    exclude: list[Text] = Field(description="globs over parameter names that are not recorded")
    flush_every_n_steps: Count = Field(description="recorded steps between two writes to disk")
    max_mib: float = Field(gt=0, le=1e9, description="largest size of the record on disk, in MiB")
    max_overhead: float = Field(gt=0, le=1, description="largest part of the training time")
