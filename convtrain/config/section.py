"""What the sections of the configuration share: strictness, and the kinds of numbers and texts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1  # of what is counted: images, pixels, steps
Fraction = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
BatchLimit = Whole | Fraction
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
FileName = Annotated[str, Field(max_length=100, pattern=r"^[\w+-][\w+.-]*$")]
TIMES_AN_EPOCH = "a part of an epoch in 0.0-1.0, or a number of batches"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
