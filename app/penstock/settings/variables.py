"""Settings in the environment: PENSTOCK_HTTP__PORT, and for secrets PENSTOCK_POSTGRES__DSN_FILE.

In: the environment. Out: what it sets, put into `Found`. Kinds and queues whose names can't be
written so are given as JSON: PENSTOCK_KINDS, PENSTOCK_QUEUES.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from penstock.settings.found import Found
from penstock.settings.names import PREFIX, SettingsError, field_of, is_secret, variable_of

ENVIRONMENT = "PENSTOCK_ENV"
NOT_SETTINGS = frozenset(
    PREFIX + name for name in ("ENV", "SSM_PATH", "CHAOS", "REDIS_BIN", "URL", "TOKEN")
)
# Kubernetes puts these into each pod beside a Service that is called `penstock`.
INJECTED_PREFIXES = ("PENSTOCK_PORT", "PENSTOCK_SERVICE_")
SECRET_FILE_MAX_BYTES = 64 * 1024
_NEAR = 0.85  # PENSTOK and PNESTOCK are, OPENSTACK isn't


def environment() -> Mapping[str, str]:
    """This process' environment; nothing else reads it."""
    return os.environ


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


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what sets us up, secrets among it: for handlers' own processes."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) or _is_not_a_setting(name)
    }


def put_variables(found: Found, environ: Mapping[str, str]) -> None:
    """Adds what the environment sets, by the order of names: PENSTOCK_KINDS before what begins
    with it."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and not _is_not_a_setting(name):
            try:
                _put(found, environ, name)
            except SettingsError as error:
                found.errors.append(error)


def secret_files(environ: Mapping[str, str]) -> list[Path]:
    """The files that variables name for secrets."""
    names = [name for name in sorted(environ) if name.startswith(PREFIX)]
    return [Path(environ[name]) for name in names if _key_of_file(key_of(name)) is not None]


def _put(found: Found, environ: Mapping[str, str], name: str) -> None:
    key, text = key_of(name), environ[name]
    if (of_file := _key_of_file(key)) is not None:
        _demand_text(of_file, name, text)
        if variable_of(of_file) in environ:
            both = f"{name} and {variable_of(of_file)} are both set: drop one"
            raise SettingsError(both, of_file)
        key, text = of_file, _secret_of_file(of_file, name, text)
    elif field_of(key) is not None:
        _demand_text(key, name, text)
    found.put_text(key, text, f"environment variable {name}", show=variable_of)


def key_of(name: str) -> str:
    """The key that a variable is for, whether there is such a setting or not."""
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _key_of_file(key: str) -> str | None:
    """The secret that PENSTOCK_..._FILE names a file for, if it is one."""
    of_file = key.removesuffix("_file")
    info = field_of(of_file) if field_of(key) is None else None
    return of_file if info is not None and is_secret(info) else None


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
