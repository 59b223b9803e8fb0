"""The gradient recorder: what it records, when, and how much."""

from typing import Literal

from pydantic import Field

from convtrain.config.section import Count, Section, Text, Whole


class Sampling(Section):
    every_n_steps: Count = Field(description="optimiser steps between two samples")
    first_n_steps: Whole = Field(description="optimiser steps at the start, each a sample")


class Recorder(Section):
    name: Literal["off", "norms", "stats", "full", "debug"] = Field(
        description="how much is recorded of the gradients"
    )
    norms: Sampling | None = Field(description="when norms are recorded")
    statistics: Sampling | None = Field(description="when statistics are recorded")
    distributions: Sampling | None = Field(description="when distributions are recorded")
    tensors: Sampling | None = Field(description="when whole gradients are recorded")
    tensor_names: list[Text] = Field(description="globs over parameter names")
    include: list[Text] = Field(description="globs over parameter names")
    exclude: list[Text] = Field(description="globs over parameter names")
    flush_every_n_steps: Count = Field(description="steps recorded between two writes")
    max_mib: float = Field(gt=0, le=1e9, description="MiB of the record on disk")
    max_overhead: float = Field(gt=0, le=1, description="part of the training time")
