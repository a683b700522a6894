"""What there is to set, by dotted key: http.port, kinds.mail.send.backoff.base_s.

Below `kinds` and `queues` comes a name that somebody chose, which may have dots itself. What ends
the key is the longest known setting of a kind or queue, what is before it is the name. So no key
is ever two, for no setting of a kind is called like one of its back-off or retention (a test).
"""

from collections.abc import Callable, Mapping
from difflib import SequenceMatcher, get_close_matches
from enum import Enum
from functools import cache
from typing import get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from penstock.domain.errors import PenstockError
from penstock.settings.kinds import Kind, QueueRules
from penstock.settings.sections import Settings

PREFIX = "PENSTOCK_"
MAPS: Mapping[str, type[BaseModel]] = {"kinds": Kind, "queues": QueueRules}

_LIKE = 0.75  # max_atempts is like max_attempts, queue isn't like timeout_s

Path = tuple[str, ...]  # of a value in the tree: ("kinds", "mail.send", "backoff", "base_s")


class SettingsError(PenstockError):
    """The settings can't be used; the text names the key, its source and the way out, and can be
    told everywhere: YAML can write halves of characters, which no JSON or database takes."""

    def __init__(self, text: str, key: str | None = None) -> None:
        super().__init__(text.encode(errors="backslashreplace").decode())
        self.key = key  # of the one setting that is wrong, where it is known


class SourceUnavailable(SettingsError):
    """A source of settings that can't be had now. Who has settings already keeps them."""


@cache
def known_fields() -> Mapping[str, FieldInfo]:
    """Every setting by its dotted key, but for those of kinds and queues."""
    fields = _fields_in(Settings)
    return {key: info for key, info in fields.items() if key != "env" and key not in MAPS}


@cache
def known_within(name: str) -> Mapping[str, FieldInfo]:
    """Every setting of one of the kinds, or of the queues."""
    return _fields_in(MAPS[name])


def _fields_in(model: type[BaseModel]) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        if (section := section_of(info)) is not None:
            fields |= {f"{name}.{inner}": field for inner, field in _fields_in(section).items()}
        else:
            fields[name] = info
    return fields


def section_of(info: FieldInfo | None) -> type[BaseModel] | None:
    """The model that a field's value is, where it is a section."""
    kind = info.annotation if info is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


@cache
def sections() -> frozenset[str]:
    """The names that settings are grouped under."""
    return frozenset(key.partition(".")[0] for key in known_fields() if "." in key)


def path_of(key: str) -> Path | None:
    """Where a key's value stands in the tree; None: it isn't a setting."""
    top, *rest = key.split(".")
    if top not in MAPS:
        return tuple(key.split(".")) if key in known_fields() else None
    for n in range(1, len(rest)):
        if ".".join(rest[n:]) in known_within(top):
            return (top, ".".join(rest[:n]), *rest[n:])
    return None


def field_of(key: str) -> FieldInfo | None:
    """The setting of a key; None: there is none."""
    path = path_of(key)
    if path is not None and path[0] in MAPS:
        return known_within(path[0])[".".join(path[2:])]
    return known_fields().get(key)


class Shape(Enum):
    """What may stand at a path: settings below it, or a value."""

    SECTION = "section"
    VALUE = "value"


def shape_at(path: Path) -> Shape | None:
    """None: nothing may."""
    top, *rest = path
    if top in MAPS and len(rest) < 2:  # the map itself, and each of its names
        return Shape.SECTION
    within, inner = (known_within(top), rest[1:]) if top in MAPS else (known_fields(), [*path])
    key = ".".join(inner)
    if key in within:
        return Shape.VALUE
    return Shape.SECTION if any(known.startswith(f"{key}.") for known in within) else None


def variable_of(key: str) -> str:
    """The environment variable of a dotted key: http.port -> PENSTOCK_HTTP__PORT."""
    return PREFIX + key.upper().replace(".", "__")


def key_of_variable(name: str) -> str:
    """The key that a variable is for, whether there is such a setting or not."""
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def is_secret(info: FieldInfo) -> bool:
    """Whether a value must never be shown, and may come from a file."""
    return holds(info.annotation, SecretStr)


def is_told(info: FieldInfo) -> bool:
    """Whether an error may repeat what was given."""
    return info.repr and not is_secret(info)


def holds(annotation: object, wanted: type) -> bool:
    """Whether a type is `wanted`, or is made of it: SecretStr | None, tuple[SecretStr, ...]."""
    if annotation is wanted or get_origin(annotation) is wanted:
        return True
    return any(holds(inner, wanted) for inner in get_args(annotation))


def way_out(key: str, show: Callable[[str], str]) -> str:
    """What to do about a key that isn't a setting: what was meant, perhaps."""
    top, *rest = key.split(".")
    if top in MAPS:
        near, known = _near_within(top, rest)
    else:
        known = list(known_fields())
        near = get_close_matches(key.replace("_", "."), known, n=1, cutoff=0.6)
        near = near or get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {show(near[0])}?"
    if within := [one for one in known if one.startswith(f"{top}.")]:
        return f"known there: {', '.join(show(one) for one in within)}"
    return "drop it; `penstock config show` lists what there is"


def _near_within(top: str, rest: list[str]) -> tuple[list[str], list[str]]:
    """What was meant below the name of a kind or queue, wherever that name ends; and what there is,
    if it is all but the last part."""
    likely = [
        (SequenceMatcher(None, ".".join(rest[n:]), inner).ratio(), n, inner)
        for n in range(1, len(rest))
        for inner in known_within(top)
    ]
    ratio, n, inner = max(likely, default=(0.0, 0, ""))
    near = [".".join((top, *rest[:n], inner))] if ratio > _LIKE else []
    name = ".".join(rest[:-1]) or "<name>"
    return near, [f"{top}.{name}.{inner}" for inner in known_within(top)]
