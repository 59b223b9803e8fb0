"""How the jobs of a sweep are ranked, repeated and given devices."""

from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.metrics import Metric, Mode
from convtrain.config.section import Section, Text, Whole


class Sweep(Section):
    metric: Metric = Field(default="val/acc", description="metric that ranks the jobs")
    mode: Mode = Field(
        default="auto", description="whether less or more is better; auto follows from metric"
    )
    fail_fast: bool = Field(default=False, description="start no job once one has failed")
    retry_failed: bool = Field(default=False, description="run jobs again that failed before")
    gpus: Annotated[list[Whole | Text], Field(min_length=1)] | Literal["auto"] | None = Field(
        default=None, description="GPUs, by number or name, that jobs take turns to use"
    )
