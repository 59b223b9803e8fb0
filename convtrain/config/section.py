"""Base classes and field types of the configuration's sections."""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

MAX_COUNT = 2**31 - 1
Fraction = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
BatchLimit = Whole | Fraction
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
FileName = Annotated[str, Field(max_length=100, pattern=r"^[\w+-][\w+.-]*$")]
PART_OR_BATCHES = "a part of an epoch in 0.0-1.0, or a number of batches"


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True
    )


class Choice(Section):
    """A choice of a group. Its builder takes the fields as keyword arguments."""

    builds: ClassVar[str]  # module:name, imported by build() so that the schema needs no torch
    selected_by: ClassVar[str | None] = "name"  # the field that the builder does not take

    @property
    def builder(self) -> Callable[..., Any]:
        return imported(self.builds)

    @property
    def arguments(self) -> dict[str, object]:
        selected_by = {self.selected_by} if self.selected_by else None
        return self.model_dump(exclude=selected_by, warnings=False)  # fields may be omitted

    def build(self, **runtime: object) -> Any:
        """Call the builder with the fields, and with arguments that are known only at run time."""
        return self.builder(**self.arguments, **runtime)


def imported(builds: str) -> Callable[..., object]:
    """Import what a section names as ``module:name``."""
    module, _, name = builds.partition(":")
    found: Callable[..., object] = getattr(import_module(module), name)
    return found
