"""Validate a configuration: the schema, the rules between keys, and the classes that it names."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import BaseModel, ValidationError

from convtrain.config.dotted import is_below
from convtrain.config.groups.network import layer_mistakes
from convtrain.config.messages import mistakes_in, section_of
from convtrain.config.mistakes import MISSING, Mistake, Origin, line
from convtrain.config.rules import disagreements
from convtrain.config.schema import Config
from convtrain.config.trust import target_mistakes, trust_mistakes
from convtrain.errors import ConfigError


def validate(
    plain: Mapping[str, object],
    origin: Origin | None = None,
    found: Sequence[Mistake] = (),
    *,
    reads_data: bool = True,
    judged: Collection[str] | None = None,
) -> Config:
    """Validate plain containers; raise ConfigError with all mistakes, including ``found`` ones.

    ``reads_data=False`` does not look at the files of the data. ``judged`` names the sections to
    which the rules between keys apply, if not to all.
    """
    mistakes = list(found)
    try:
        config = Config.model_validate(plain)
        sections = {name: getattr(config, name) for name in Config.model_fields}
    except ValidationError as error:
        wrong = mistakes_in(error, plain)
        keys = {mistake.key for mistake in wrong}
        mistakes = [m for m in found if m.text != MISSING or m.key not in keys]
        known = [mistake.key for mistake in mistakes]
        mistakes += [m for m in wrong if not any(is_below(key, m.key) for key in known)]
        absent = {n: i.default for n, i in Config.model_fields.items() if n not in plain}
        sections = {**absent, **_right_parts(Config, plain, [*keys, *known])}
    if judged is not None:
        sections = {name: sections[name] for name in sections if name in judged}
    mistakes += disagreements(sections, reads_data=reads_data)
    mistakes += trust_mistakes(plain.get("trust"))
    mistakes += target_mistakes(plain, plain.get("trust"))
    mistakes += layer_mistakes(plain.get("network"), plain.get("trust"))
    if mistakes:
        raise ConfigError(*dict.fromkeys(line(mistake, plain, origin) for mistake in mistakes))
    return config


def _right_parts(
    section: type[BaseModel], values: Mapping[str, object], wrong: Sequence[str], above: str = ""
) -> dict[str, object]:
    """Return the valid fields of a section; its inner sections lack their invalid fields."""
    parts: dict[str, object] = {}
    for name, info in section.model_fields.items():
        alias = info.alias or name
        key, value = f"{above}{alias}", values.get(alias)
        inner = section_of(info.annotation, value) if isinstance(value, dict) else None
        if inner is not None and isinstance(value, dict):
            below = _right_parts(inner, value, wrong, f"{key}.")
            parts[name] = made = inner.model_construct(None, **below)
            for field, declared in inner.model_fields.items():
                if field not in below and (declared.alias or field) in value:
                    made.__dict__.pop(field, None)  # model_construct has put the default there
        elif alias in values and not any(is_below(each, key) for each in wrong):
            parts[name] = value
    return parts
