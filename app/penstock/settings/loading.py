"""From sources to settings: validates what was found and says clearly what is wrong.

In: the environment and the directory of YAML files. Out: `Settings`, or one section of them, or
`SettingsError`. Order, the later winning: defaults, base.yaml, <environment>.yaml, environment.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from penstock import places
from penstock.settings.found import Found
from penstock.settings.names import (
    MAPS,
    SettingsError,
    field_of,
    is_told,
    known_fields,
    path_of,
    variable_of,
)
from penstock.settings.section import Section
from penstock.settings.sections import Settings
from penstock.settings.sources import gather
from penstock.settings.variables import ENVIRONMENT

MASK = "********"

AnySection = TypeVar("AnySection", bound=Section)


@dataclass(frozen=True)
class Setting:
    """One line of `penstock config show`; `value` is JSON-ready and masked when it is secret."""

    key: str
    value: object
    source: str
    description: str


def load(environ: Mapping[str, str], config_dir: Path | None = None) -> Settings:
    """All settings of a server. Raises SettingsError, which names each wrong one."""
    found = _readable(gather(environ, config_dir or places.config_dir()))
    try:
        settings = Settings.model_validate({**found.nested(), "env": found.environment})
    except ValidationError as error:
        raise _refusal(error, found) from None
    settings._origins.update(found.origins)
    if ENVIRONMENT in environ:
        settings._origins["env"] = f"environment variable {ENVIRONMENT}"
    return settings


def load_section(
    kind: type[AnySection], environ: Mapping[str, str], config_dir: Path | None = None
) -> AnySection:
    """One section alone, for a command that must not demand the others' secrets."""
    name = kind.__name__.lower()
    found = _readable(gather(environ, config_dir or places.config_dir()))
    try:
        return kind.model_validate(found.nested().get(name, {}))
    except ValidationError as error:
        raise _refusal(error, found, section=name) from None


def given_keys(environ: Mapping[str, str], config_dir: Path | None = None) -> frozenset[str]:
    """The dotted keys that a file or the environment sets; the others have their defaults."""
    return frozenset(gather(environ, config_dir or places.config_dir()).values)


def _readable(found: Found) -> Found:
    if found.errors:
        raise _together([str(error) for error in found.errors])
    return found


def survey(environ: Mapping[str, str], config_dir: Path | None = None) -> list[Setting]:
    """As `describe`, for settings that may be missing or wrong: their value says so."""
    found = gather(environ, config_dir or places.config_dir())
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


def _refusal(error: ValidationError, found: Found, section: str = "") -> SettingsError:
    return _together(list(_innermost(error, found, section)))


def _together(problems: list[str]) -> SettingsError:
    if len(problems) == 1:
        return SettingsError(problems[0])
    listed = "".join(f"\n  - {problem}" for problem in problems)
    return SettingsError(f"{len(problems)} settings are wrong:{listed}")


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
        yield text
    elif key is None:  # a rule across settings names them itself
        yield f"{text}; they come from {_places(text, loc, found)}"
    elif error["type"] == "missing" and not inner:
        name = variable_of(key)
        yield f"{key} is required: set {name}, or {name}_FILE to a file that holds it"
    else:
        yield _wrong(key, f"{inner}: {text}" if inner else text, found)


def _parted(loc: list[str]) -> tuple[str | None, str]:
    """The setting that a place of pydantic's lies in, and the rest of it."""
    for n in range(len(loc), 0, -1):
        key = ".".join(loc[:n])
        if (path := path_of(key)) is not None and list(path) == loc[:n]:
            return key, ".".join(loc[n:])
    return None, ""


def _places(text: str, loc: list[str], found: Found) -> str:
    """Where those settings come from that a text names, or that lie where it was found wrong."""
    below = f"{'.'.join(loc[:2])}." if loc and loc[0] in MAPS else None
    places_of = {
        f"{key}: {origin}"
        for key, origin in found.origins.items()
        if key in text or (below and key.startswith(below))
    }
    return "; ".join(sorted(places_of)) or "the defaults"


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "it should")


def _wrong(key: str, text: str, found: Found) -> str:
    info = field_of(key)
    assert info is not None  # nobody calls it for another
    given = f" = {found.values.get(key)!r}" if is_told(info) else ""
    source = found.origins.get(key, "default")
    return f"{source}: {key}{given}: {text} ({info.description})"
