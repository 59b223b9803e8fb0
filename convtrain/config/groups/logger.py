"""Where metrics are logged."""

from typing import Annotated

from pydantic import Field

from convtrain.config.section import Section


class Logger(Section):
    tensorboard: bool = Field(description="write TensorBoard events")
    csv: bool = Field(description="write metrics.csv")
    images: Annotated[int, Field(ge=0, le=1024)] = Field(description="test images in TensorBoard")
