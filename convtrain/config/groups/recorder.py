"""The gradient recorder: what it records, when, and how much."""

from typing import Literal

from pydantic import Field

from convtrain.config.section import Count, Section, Text, Whole


class Sampling(Section):
    every_n_steps: Count = Field(description="optimiser steps between two recorded steps")
    first_n_steps: Whole = Field(description="optimiser steps at the start, all recorded")


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
