"""What a user names by ``_target_``: a class, or a function, and its arguments.

:mod:`convtrain.config.trust` decides what may be named. :func:`check_targets` imports it and binds
the arguments to its signature, before any data is read; ``build`` calls it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidatorFunctionWrapHandler,
)

from convtrain.config.mistakes import Mistake, Origin, line
from convtrain.config.section import Choice, Section
from convtrain.config.signatures import takes, wrong_arguments
from convtrain.config.trust import Kind, load
from convtrain.errors import ConfigError, error_line


class Trusting(Section):
    """A section that names code of a user's own."""

    _key: str = PrivateAttr("")
    _trust: tuple[str, ...] = PrivateAttr(())

    def place(self, key: str, trust: Sequence[str]) -> None:
        """Tell the section its dotted key and the packages that the configuration trusts."""
        self._key, self._trust = key, tuple(trust)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong with the arguments; ConfigError if the code cannot be imported."""
        raise NotImplementedError


class Target(Trusting, Choice):
    """An object of a user's choice. Keys that are no fields of the section are its arguments.

    A group's section derives from it, names the kind, and adds the keys that convtrain reads.
    """

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[Kind]
    positional: ClassVar[int] = 0  # number of leading arguments that ``build`` is given
    given: ClassVar[tuple[str, ...]] = ()  # names of arguments that ``build`` is given

    target: str = Field(alias="_target_", description="import path of a class")

    @property
    def key(self) -> str:
        """The dotted key of its section."""
        return self._key

    @property
    def where(self) -> str:
        """The override that names it, for errors."""
        return f"{self._key}._target_={self.target}"

    @property
    def class_name(self) -> str:
        return self.target.rpartition(".")[2]

    @property
    def builder(self) -> Callable[..., object]:
        """The class or the function; ConfigError unless it is allowed and can be imported."""
        return load(f"{self._key}._target_", self.target, self._trust, self.kind)

    @property
    def arguments(self) -> dict[str, object]:
        return dict(self.model_extra or {})

    def offered(self, **values: object) -> dict[str, object]:
        """Return the values whose names the signature has and that were not typed."""
        typed, called = self.arguments, self.builder
        return {k: v for k, v in values.items() if k not in typed and takes(called, k)}

    def build(self, *positional: object, **runtime: object) -> Any:
        """Call it; ConfigError if that fails, because the arguments are the user's."""
        called = self.builder
        try:
            return called(*positional, **self.arguments, **runtime)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.where}: {error}") from error
        except Exception as error:  # a user's code may raise anything
            raise ConfigError(f"{self.where}: {error_line(error)}") from error

    def mistakes(self) -> Iterator[Mistake]:
        offered = self.offered(**dict.fromkeys(self.given))
        wrong = wrong_arguments(
            self.builder,
            self.arguments,
            positional=self.positional,
            given=offered,
            beside=type(self).model_fields,
        )
        for argument, text in wrong:
            if argument in type(self).model_fields and argument not in self.arguments:
                text = (
                    f"is convtrain's own key, so that {self.class_name} cannot get its argument "
                    f"{argument}; name a class or function whose argument has another name"
                )
            yield Mistake(f"{self._key}.{argument}", text)


def named_or_as_it_is(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Validate an item of a list of targets; the rules report one without a name in ``_target_``.

    For ``Annotated[T, WrapValidator(named_or_as_it_is)]``, T being a :class:`Target`.
    """
    names_none = isinstance(value, dict) and not isinstance(value.get("_target_"), str)
    return value if names_none else validate(value)


def unnamed(items: Sequence[object], key: str, example: str) -> Iterator[Mistake]:
    """Yield a mistake for every item of a list of targets that has no ``_target_``."""
    for index, item in enumerate(items):
        if isinstance(item, dict) and "_target_" not in item:
            yield Mistake(f"{key}.{index}", f"needs a _target_, such as {example}")


def targets_in(section: object, key: str = "") -> Iterator[tuple[str, Trusting]]:
    """Yield the dotted key of every section that names a user's own code, and the section."""
    if isinstance(section, Trusting):
        yield key, section
    if isinstance(section, BaseModel):
        for name, value in section:
            yield from targets_in(value, f"{key}.{name}" if key else name)
    elif isinstance(section, list | dict):
        named = section if isinstance(section, dict) else dict(enumerate(section))
        for part, value in named.items():
            yield from targets_in(value, f"{key}.{part}")


def check_targets(config: BaseModel, origin: Origin | None = None) -> None:
    """Import every target and check its arguments; ConfigError has one line for each mistake."""
    found, lines = list(targets_in(config)), list[str]()
    plain = config.model_dump(by_alias=True) if found else {}
    for _, target in found:
        try:
            lines += [line(mistake, plain, origin) for mistake in target.mistakes()]
        except ConfigError as error:
            lines += error.lines
    if lines:
        raise ConfigError(*lines)
