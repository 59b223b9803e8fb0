"""Checkpoints, early stopping, output, and Lightning callbacks."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, WrapValidator

from convtrain.config.lightning_callbacks import base_refusal
from convtrain.config.metrics import Metric, Mode
from convtrain.config.mistakes import Mistake
from convtrain.config.section import Count, Section, Whole
from convtrain.config.targets import Target, named_or_as_it_is
from convtrain.config.trust import CALLBACK


class Checkpoint(Section):
    monitor: Metric = Field(description="metric that selects the best checkpoints")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    save_top_k: Whole = Field(description="number of best checkpoints that are kept")
    every_n_epochs: Count = Field(description="epochs between two checkpoints")
    every_n_steps: Count | None = Field(description="optimiser steps between two checkpoints")
    every_n_minutes: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        description="minutes between two checkpoints"
    )
    keep_last: Count = Field(description="number of newest checkpoints that are kept")
    test_with: Literal["best", "last"] = Field(description="checkpoint that the final test loads")


class EarlyStopping(Section):
    monitor: Metric = Field(description="monitored metric")
    mode: Mode = Field(description="whether less or more is better; auto follows from monitor")
    patience: Count | None = Field(description="epochs without improvement before the stop")
    min_delta: float = Field(
        ge=0, le=1e9, description="smallest improvement, in units of the metric"
    )


class CallbackTarget(Target):
    kind = CALLBACK

    def mistakes(self) -> Iterator[Mistake]:
        found = self.builder
        assert isinstance(found, type)
        if (reason := base_refusal(found)) is not None:
            yield Mistake(f"{self.key}._target_", reason)
        else:
            yield from super().mistakes()


class Callbacks(Section):
    checkpoint: Checkpoint
    early_stopping: EarlyStopping
    progress_bar: bool = Field(description="show a progress bar")
    walkthrough: bool = Field(description="print the six steps of training on the first batch")
    report: bool = Field(default=True, description="write report.html at the end of the run")
    custom: list[Annotated[CallbackTarget, WrapValidator(named_or_as_it_is)]] = Field(
        description="Lightning callbacks, each with a _target_"
    )
