"""From sources to settings: validates what was found and says clearly what is wrong.

In: what `sources` gathers. Out: `Settings`, or one section of them, or `SettingsError`, which tells
everything that is wrong at once. Nothing but the defaults comes from here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from penstock.settings.found import Found
from penstock.settings.names import (
    MAPS,
    SettingsError,
    SourceUnavailable,
    field_of,
    is_told,
    known_fields,
    path_of,
    variable_of,
)
from penstock.settings.section import Section
from penstock.settings.sections import Settings
from penstock.settings.sources import gather
from penstock.settings.ssm import Parameters
from penstock.settings.variables import ENVIRONMENT

MASK = "********"
_SHOULD = re.compile(r"^[A-Z]\w* should ")  # "Input should be …", "String should match …"
_TOLD_MAX = 200  # characters of a wrong value

AnySection = TypeVar("AnySection", bound=Section)


@dataclass(frozen=True)
class Setting:
    """One line of `penstock config show`; `value` is JSON-ready and masked when it is secret."""

    key: str
    value: object
    source: str
    description: str


def load(
    environ: Mapping[str, str],
    config_dir: Path | None = None,
    parameters: Parameters | None = None,
) -> Settings:
    """All settings of a server. `parameters`: as `ssm.fetch` gave them; else those of this process'
    first look. Raises SettingsError, which names each wrong one; SourceUnavailable where it isn't
    known what they are."""
    found = gather(environ, config_dir, parameters)
    tree = {**found.nested(), "env": found.environment}
    settings = _validated(Settings, tree, found)
    settings._origins.update(found.origins)
    if ENVIRONMENT in environ:
        settings._origins["env"] = f"environment variable {ENVIRONMENT}"
    return settings


def load_section(
    kind: type[AnySection], environ: Mapping[str, str], config_dir: Path | None = None
) -> AnySection:
    """One section alone, for a command that must not demand the others' secrets."""
    name = kind.__name__.lower()
    found = gather(environ, config_dir)
    return _validated(kind, found.nested().get(name, {}), found, name)


def _validated(
    kind: type[AnySection], tree: Mapping[str, Any], found: Found, section: str = ""
) -> AnySection:
    """Raises SettingsError with all that is wrong: what can't be read, and what can't be used."""
    try:
        settings = kind.model_validate(tree)
    except ValidationError as error:
        refused = list(_innermost(error, found, section))
    else:
        if not found.errors:
            return settings
        refused = []
    problems = list(dict.fromkeys([*map(str, found.errors), *refused]))
    text = problems[0]
    if len(problems) > 1:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        text = f"{len(problems)} settings are wrong:{listed}"
    is_away = any(isinstance(one, SourceUnavailable) for one in found.errors)
    raise (SourceUnavailable if is_away else SettingsError)(text)


def given_keys(environ: Mapping[str, str], config_dir: Path | None = None) -> frozenset[str]:
    """The dotted keys that a file or the environment sets; the others have their defaults."""
    return frozenset(gather(environ, config_dir).values)


def survey(environ: Mapping[str, str], config_dir: Path | None = None) -> list[Setting]:
    """As `describe`, for settings that may be missing or wrong: their value says so."""
    found = gather(environ, config_dir)
    unread = {error.key for error in found.errors}
    env = Setting(
        "env",
        found.environment,
        f"environment variable {ENVIRONMENT}" if ENVIRONMENT in environ else "default",
        Settings.model_fields["env"].description or "",
    )
    return [env] + [
        Setting(
            key=key,
            value="(wrong: can't be read)" if key in unread else _tried(key, info, found),
            source=found.origins.get(key, "-" if info.is_required() else "default"),
            description=info.description or "",
        )
        for key, info in _fields_of(found.values).items()
    ]


def _fields_of(keys: Iterable[str]) -> dict[str, FieldInfo]:
    """Every setting, and of kinds and queues those that are among these keys."""
    fields = dict(known_fields())
    for key in sorted(keys):
        if key.partition(".")[0] in MAPS and (info := field_of(key)) is not None:
            fields[key] = info
    return fields


def _tried(key: str, info: FieldInfo, found: Found) -> object:
    if key not in found.values:
        return "(missing)" if info.is_required() else _shown(info.get_default())
    whole: Any = info.annotation
    if info.metadata:
        whole = Annotated[whole, *info.metadata]
    adapter: TypeAdapter[object] = TypeAdapter(whole)
    try:
        return _shown(adapter.validate_python(found.values[key]))
    except ValidationError as error:
        return f"(wrong: {_said(error.errors()[0]['msg'])})"


def describe(settings: Settings) -> list[Setting]:
    """Every setting with its value, its source and what it means; secrets are masked."""
    env = Settings.model_fields["env"]
    fields = {"env": env, **_fields_of(settings._origins)}
    return [
        Setting(
            key=key,
            value=_shown(_value(settings, key)),
            source=settings._origins.get(key, "default"),
            description=info.description or "",
        )
        for key, info in fields.items()
    ]


def _value(settings: Settings, key: str) -> object:
    value: Any = settings
    for name in path_of(key) or (key,):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value


def _innermost(error: ValidationError, found: Found, section: str) -> Iterator[str]:
    seen: list[tuple[int | str, ...]] = []
    for details in error.errors():
        loc = details["loc"]
        # A wrong item of a list comes with a complaint about the list as a whole: one is enough.
        if not any(inner[: len(loc)] == loc for inner in seen):
            yield from _problems(details, found, section)
        seen.append(loc)


def _problems(error: ErrorDetails, found: Found, section: str) -> Iterator[str]:
    loc = ([section] if section else []) + [str(part) for part in error["loc"]]
    key, inner = _parted(loc)
    text = _said(error["msg"])
    if error["type"] == "lacking":  # one of several, which the rule names itself
        yield from _unless_unread(text, text, found)
    elif key is None and loc[-1:] == ["[key]"]:
        yield f"{_places(text, loc, found)}: {' '.join(loc[:-1])} can't be a name: {text}"
    elif key is None:  # a rule across settings names them itself
        yield from _unless_unread(
            text, f"{text}; they come from {_places(text, loc, found)}", found
        )
    elif error["type"] == "missing" and not inner:
        name = variable_of(key)
        told = f"{key} is required: set {name}, or {name}_FILE to a file that holds it"
        yield from _unless_unread(key, told, found)
    else:
        yield _wrong(key, inner, text, found)


def _unless_unread(keys: str, told: str, found: Found) -> Iterator[str]:
    """Nothing where those settings may be in what could not be read: a value, or a whole file."""
    if not any(error.key is None or error.key in keys for error in found.errors):
        yield told


def _parted(loc: list[str]) -> tuple[str | None, list[str]]:
    """The setting that a place of pydantic's lies in, and the rest of it."""
    for n in range(len(loc), 0, -1):
        key = ".".join(loc[:n])
        if (path := path_of(key)) is not None and list(path) == loc[:n]:
            return key, loc[n:]
    return None, []


def _places(text: str, loc: list[str], found: Found) -> str:
    """Where those settings come from that a text names, or that lie where it was found wrong."""
    if loc and loc[0] in MAPS:
        below = f"{'.'.join(loc[:2])}."
        return next((at for key, at in found.origins.items() if key.startswith(below)), "?")
    places_of = {f"{key}: {origin}" for key, origin in found.origins.items() if key in text}
    return "; ".join(sorted(places_of)) or "the defaults"


def _cut(text: str) -> str:
    return text if len(text) <= _TOLD_MAX else f"{text[:_TOLD_MAX]}…"


def _said(message: str) -> str:
    if message == "Extra inputs are not permitted":
        return "is not a setting"
    return _SHOULD.sub("it should ", message.removeprefix("Value error, "))


def _wrong(key: str, inner: list[str], text: str, found: Found) -> str:
    info = field_of(key)
    assert info is not None  # nobody calls it for another
    given = f" = {_cut(repr(found.values.get(key)))}" if is_told(info) else ""
    at = f"{'.'.join(inner)}: " if inner else ""
    return f"{found.place(key, inner)}: {key}{given}: {at}{text} ({info.description})"
