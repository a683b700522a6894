"""Where settings come from: YAML files, then environment variables, merged by dotted key.

In: the environment and the directory of YAML files. Out: `Found`, each given value with the place
it came from. Always holds: a name that is not a setting stops here, with the nearest known one.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from penstock.domain.errors import PenstockError
from penstock.settings.sections import Settings

PREFIX = "PENSTOCK_"
ENVIRONMENT = "PENSTOCK_ENV"
NOT_SETTINGS = frozenset(
    PREFIX + name for name in ("ENV", "SSM_PATH", "CHAOS", "REDIS_BIN", "URL", "TOKEN")
)
# Kubernetes puts these into each pod beside a Service that is called `penstock`.
INJECTED_PREFIXES = ("PENSTOCK_PORT", "PENSTOCK_SERVICE_")
SECRET_FILE_MAX_BYTES = 64 * 1024
_NEAR = 0.85  # PENSTOK and PNESTOCK are, OPENSTACK isn't


class SettingsError(PenstockError):
    """The settings can't be used; the text names the key, its source and the way out."""

    def __init__(self, text: str, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key  # of the one setting that is wrong, where it is known


@dataclass(frozen=True)
class Found:
    """The values that were given, by dotted key, and where each one came from.

    `errors`: what could not be read.
    """

    environment: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    errors: list[SettingsError] = field(default_factory=list)

    def put(self, key: str, value: object, origin: str) -> None:
        """Remember a value; a later source wins."""
        self.values[key] = value
        self.origins[key] = origin

    def nested(self) -> dict[str, Any]:
        """The values as pydantic wants them: `http.port` is in `["http"]["port"]`."""
        # A section that nothing is said of is there too, so that each setting it lacks is named.
        tree: dict[str, Any] = {name: {} for name in sections()}
        for key, value in self.values.items():
            section, dot, name = key.partition(".")
            if dot:
                tree.setdefault(section, {})[name] = value
            else:
                tree[section] = value
        return tree


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """Names of variables that look like settings, but have another prefix and so do nothing."""
    prefix = PREFIX.rstrip("_")
    return [
        name
        for name in sorted(environ)
        if not name.startswith(PREFIX)
        and "_" in name
        and get_close_matches(name.upper().partition("_")[0], [prefix], cutoff=_NEAR)
    ]


def environment() -> Mapping[str, str]:
    """This process' environment; nothing else reads it."""
    return os.environ


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what sets us up, secrets among it: for handlers' own processes."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) or _is_not_a_setting(name)
    }


def gather(environ: Mapping[str, str], config_dir: Path) -> Found:
    """Read base.yaml, the environment's YAML and the environment's variables, in this order."""
    environment = environ.get(ENVIRONMENT, "production")
    found = Found(environment)
    try:
        for path in _yaml_files(config_dir, environment):
            for key, value in _yaml_values(path):
                found.put(key, value, str(path))
    except SettingsError as error:
        found.errors.append(error)
    for name in sorted(environ):
        if name.startswith(PREFIX) and not _is_not_a_setting(name):
            try:
                key, value = _variable(environ, name)
                found.put(key, value, f"environment variable {name}")
            except SettingsError as error:
                found.errors.append(error)
    return found


def files_of(environ: Mapping[str, str], config_dir: Path) -> list[Path]:
    """The files that settings are read from, whether they are there or not."""
    environment = environ.get(ENVIRONMENT, "production")
    files = [config_dir / "base.yaml", config_dir / f"{environment}.yaml"]
    names = [name for name in sorted(environ) if name.startswith(PREFIX) and name.endswith("_FILE")]
    return files + [Path(environ[name]) for name in names if not _is_not_a_setting(name)]


def known_fields() -> dict[str, FieldInfo]:
    """Every setting by its dotted key."""
    fields: dict[str, FieldInfo] = {}
    for name, info in Settings.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields |= {f"{name}.{inner}": f for inner, f in section.model_fields.items()}
        elif name != "env":
            fields[name] = info
    return fields


def sections() -> frozenset[str]:
    """The names that settings are grouped under."""
    return frozenset(key.partition(".")[0] for key in known_fields() if "." in key)


def variable_of(key: str) -> str:
    """The environment variable of a dotted key: http.port -> PENSTOCK_HTTP__PORT."""
    return PREFIX + key.upper().replace(".", "__")


def is_secret(info: FieldInfo) -> bool:
    """Whether a value must never be shown, and may come from a file."""
    return _holds(info.annotation, SecretStr)


def is_told(info: FieldInfo) -> bool:
    """Whether an error may repeat what was given."""
    return info.repr and not is_secret(info)


def _yaml_files(config_dir: Path, environment: str) -> Iterator[Path]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", environment):
        raise SettingsError(
            f"{ENVIRONMENT} is {environment!r}: use small letters, digits, - and _ only"
        )
    base = config_dir / "base.yaml"
    if base.is_file():
        yield base
    own = config_dir / f"{environment}.yaml"
    if own.is_file():
        yield own
    elif environment != "production":
        # A misspelt name must not start a server with another environment's settings.
        there = {path.stem for path in config_dir.glob("*.yaml")} - {"base"}
        known = ", ".join(sorted(there | {"production"}))
        raise SettingsError(
            f"{ENVIRONMENT} is {environment!r}, but there is no {own}: "
            f"write that file or choose one of {known}"
        )


def _yaml_values(path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in _flat(_yaml_tree(path), path):
        if value is not None:  # `port:` with nothing behind it leaves the value as it was
            _demand_known(key, str(path), show=str)
            yield key, value


def _yaml_tree(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path} can't be read: {reason}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must hold sections (`http:`, `worker:`, ...) at its top")
    return tree


def _flat(tree: dict[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    groups = sections()
    for name, value in tree.items():
        if name not in groups or value is None:
            yield str(name), value
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", v) for inner, v in value.items())
        else:
            raise SettingsError(
                f"{name} in {path} is a section: write its settings below it, indented"
            )


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, object]:
    """The key that a variable sets, and its value."""
    fields = known_fields()
    key = name.removeprefix(PREFIX).lower().replace("__", ".")
    of_file = key.removesuffix("_file")
    if key not in fields and of_file in fields and is_secret(fields[of_file]):
        _demand_text(of_file, name, environ[name])
        if variable_of(of_file) in environ:
            both = f"{name} and {variable_of(of_file)} are both set: drop one"
            raise SettingsError(both, of_file)
        text = _secret_of_file(of_file, name, environ[name])
        return of_file, _parsed(of_file, name, text, fields[of_file])
    _demand_known(key, "the environment", show=variable_of, given=name)
    _demand_text(key, name, environ[name])
    return key, _parsed(key, name, environ[name], fields[key])


def _demand_text(key: str, name: str, text: str) -> None:
    # Nobody can tell whether an empty one stands for the default, or for a value that got lost.
    if not text:
        raise SettingsError(f"{name} is empty: give {key} a value, or unset the variable", key)


def _is_not_a_setting(name: str) -> bool:
    return name in NOT_SETTINGS or name.startswith(INJECTED_PREFIXES)


def _secret_of_file(key: str, name: str, path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(SECRET_FILE_MAX_BYTES).strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name} names {path}, which can't be read: {error}", key) from error


def _parsed(key: str, name: str, text: str, info: FieldInfo) -> object:
    if not _holds(info.annotation, tuple):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise SettingsError(
            f'{key} (environment variable {name}) must be a JSON list, for example ["one", "two"]',
            key,
        )
    return value


def _holds(annotation: object, wanted: type) -> bool:
    """Whether a type is `wanted`, or is made of it: SecretStr | None, tuple[SecretStr, ...]."""
    if annotation is wanted or get_origin(annotation) is wanted:
        return True
    return any(_holds(inner, wanted) for inner in get_args(annotation))


def _demand_known(
    key: str, source: str, show: Callable[[str], str], given: str | None = None
) -> None:
    fields = known_fields()
    if key in fields:
        return
    section = key.partition(".")[0]
    within = [known for known in fields if known.startswith(f"{section}.")]
    near = get_close_matches(key.replace("_", "."), fields, n=1, cutoff=0.6)
    near = near or get_close_matches(key, fields, n=1, cutoff=0.6)
    if near:
        way_out = f"did you mean {show(near[0])}?"
    elif within:
        way_out = f"known there: {', '.join(show(known) for known in within)}"
    else:
        way_out = "drop it; `penstock config show` lists what there is"
    raise SettingsError(f"{given or key} in {source} is not a setting: {way_out}")
