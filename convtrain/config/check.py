"""From a composed configuration to a typed one, or to one line for every mistake in it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from convtrain.config.compose import CommandLine, compose_leniently
from convtrain.config.folders import class_names
from convtrain.config.resume import stored_config
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, did_you_mean

Origin = Callable[[str], str]


def check_command_line(arguments: Sequence[str]) -> None:
    """Check everything a command asks for before anything runs; exit with status 2 if it is wrong.

    In a sweep every value is checked, so that the last job cannot fail over a typing mistake.
    """
    try:
        command = CommandLine.parse(arguments)
        if command.trains:
            lines: list[str] = []
            for composed in compose_leniently(command):
                try:
                    resolve_config(composed.config, command.overrides, composed.origin)
                except ConfigError as error:
                    lines += error.lines
            if lines:
                raise ConfigError(*dict.fromkeys(lines))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


def resolve_config(
    composed: DictConfig, overrides: Sequence[str] = (), origin: Origin | None = None
) -> Config:
    """Resolve interpolations, fill in what the data's folders tell, and validate.

    Args:
        composed: what Hydra composed, without its ``hydra`` node. Where it names a run to resume,
            that run's own configuration takes its place.
        overrides: what was typed on the command line.
        origin: tells what set a key; shown behind each mistake.

    Raises:
        ConfigError: one line for each mistake.
    """
    resume = composed.get("resume")
    composed = stored_config(str(resume), overrides) if resume else composed.copy()
    OmegaConf.set_readonly(composed, False)
    OmegaConf.set_struct(composed, False)
    _read_image_folder(composed)
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return validate({str(key): value for key, value in plain.items()}, origin)


def validate(plain: dict[str, Any], origin: Origin | None = None) -> Config:
    """Validate plain containers against the schema.

    Raises:
        ConfigError: one line for each mistake: key, value, what is allowed, what set it.
    """
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(*_lines(error, plain, origin)) from error


def _read_image_folder(composed: DictConfig) -> None:
    data = composed.get("data")
    is_folder = isinstance(data, DictConfig) and data.get("name") == "image_folder"
    if is_folder and data.get("classes") is None and isinstance(data.get("root"), str):
        data.classes = class_names(Path(data.root))
        if data.get("num_classes") is None:
            data.num_classes = len(data.classes)


def _lines(error: ValidationError, plain: dict[str, Any], origin: Origin | None) -> list[str]:
    """Return one line for each wrong key; the alternatives of a union share one."""
    found: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    for mistake in error.errors(include_url=False):
        key, section = _key(mistake["loc"], plain)
        kind, message = mistake["type"], mistake["msg"]
        if kind == "extra_forbidden":
            typed = key.rsplit(".", maxsplit=1)[-1]
            known = section.model_fields if section else {}
            found[key] = [f"no such key{_nearest(key, typed, known)}"]
            continue
        if kind == "value_error":
            found.setdefault(message.removeprefix("Value error, "), [])
            continue
        if kind == "union_tag_invalid":
            tags = mistake.get("ctx", {})
            key = f"{key}.{str(tags['discriminator']).strip(chr(39))}"
            message = f"Input should be one of {tags['expected_tags']}"
        text = message.replace("Input should be", "must be").replace("Field required", "is missing")
        text = text.replace("a valid ", "a ").replace("a integer", "an integer")
        found.setdefault(key, [])
        if text not in found[key]:
            found[key].append(text[0].lower() + text[1:])
        leaf = key.rsplit(".", maxsplit=1)[-1]
        if section and (info := section.model_fields.get(leaf)) and info.description:
            details[key] = f" ({info.description})"
    return [_line(key, texts, details.get(key, ""), plain, origin) for key, texts in found.items()]


def _line(
    key: str, texts: list[str], detail: str, plain: dict[str, Any], origin: Origin | None
) -> str:
    if not texts:
        return key
    value = _value(plain, key)
    shown = "" if value is _ABSENT else f"={value if value is not None else 'null'}"
    source = f" [set in: {origin(key)}]" if origin else ""
    allowed = " or ".join(texts).replace(" or must be ", " or ")
    return f"{key}{shown}: {allowed}{detail}{source}"


_ABSENT = object()


def _value(plain: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(plain, list) and part.isdigit() and int(part) < len(plain):
            plain = plain[int(part)]
        elif isinstance(plain, dict) and part in plain:
            plain = plain[part]
        else:
            return _ABSENT
    return plain


def _key(location: tuple[int | str, ...], plain: Any) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted key of an error, and the section that holds it.

    pydantic's location also names the branch of a union; a part that is neither a key of the
    configuration nor a field of the section is such a branch.
    """
    section: type[BaseModel] | None = Config
    parts: list[str] = []
    node: Any = plain
    for part in location:
        matching = [branch for branch in _branches(section, parts) if _tagged(branch, str(part))]
        if matching:
            section = matching[0]
            continue
        inside = isinstance(node, dict) and part in node
        inside = inside or (isinstance(node, list) and isinstance(part, int) and part < len(node))
        if not inside and not (section and part in section.model_fields):
            continue
        if branches := _branches(section, parts):
            section = branches[0]
        elif parts and section and parts[-1] in section.model_fields:
            section = None
        parts.append(str(part))
        node = node[part] if inside else None
    return ".".join(parts), section


def _branches(section: type[BaseModel] | None, parts: list[str]) -> list[type[BaseModel]]:
    """Return the sections that the last key of ``parts`` may hold."""
    if section is None or not parts or parts[-1] not in section.model_fields:
        return []
    return _sections(section.model_fields[parts[-1]].annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections an annotation allows, through unions and ``Annotated``."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [s for part in get_args(annotation) for s in _sections(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def _tagged(section: type[BaseModel], tag: str) -> bool:
    """Tell whether ``tag`` is among the values of the field that tells a union's branches apart."""
    for name in ("name", "style"):
        info = section.model_fields.get(name)
        if info is not None and tag in get_args(info.annotation):
            return True
    return False


def _nearest(key: str, typed: str, known: Any) -> str:
    near = did_you_mean(typed, known)
    if near:
        prefix = key[: -len(typed)]
        return near.replace("did you mean ", f"did you mean {prefix}")
    everywhere = _all_keys(Config)
    by_leaf = {path.rsplit(".", maxsplit=1)[-1]: path for path in everywhere if path != key}
    near = did_you_mean(typed, by_leaf)
    if near:
        leaf = near.removeprefix("; did you mean ").removesuffix("?")
        return f"; did you mean {by_leaf[leaf]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _all_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in section.model_fields.items():
        inner = _sections(info.annotation)
        keys += [k for s in inner for k in _all_keys(s, f"{prefix}{name}.")] or [prefix + name]
    return keys
