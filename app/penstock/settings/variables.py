"""Settings in the environment: PENSTOCK_HTTP__PORT, and for secrets PENSTOCK_POSTGRES__DSN_FILE.

In: the environment. Out: what it sets, put into `Found`. Kinds and queues whose names can't be
written so are given as JSON: PENSTOCK_KINDS, PENSTOCK_QUEUES.
"""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from penstock.settings.found import Found
from penstock.settings.names import (
    PREFIX,
    SettingsError,
    field_of,
    is_secret,
    key_of_variable,
    variable_of,
)
from penstock.settings.secret_files import SECRETS_DIR, text_of
from penstock.settings.ssm import SSM_PATH

ENVIRONMENT = "PENSTOCK_ENV"
CONFIG_DIR = "PENSTOCK_CONFIG_DIR"
OF_SOURCES = frozenset({CONFIG_DIR, SSM_PATH, SECRETS_DIR})  # where the others are
NOT_SETTINGS = frozenset(PREFIX + name for name in ("ENV", "CHAOS", "REDIS_BIN", "URL", "TOKEN"))
# Kubernetes tells each pod of each Service of its namespace: of `penstock`, `penstock-redis` ...
_SERVICE = re.compile(r"PENSTOCK(_[A-Z0-9]+)*?_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)")
_PORT = re.compile(r"PENSTOCK(_[A-Z0-9]+)*?_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
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
        if not name.startswith(PREFIX) or _is_not_a_setting(name, value)
    }


def put_variables(found: Found, environ: Mapping[str, str]) -> None:
    """Adds what the environment sets, by the order of names: PENSTOCK_KINDS before what begins
    with it."""
    for name in sorted(environ):
        is_ours = name.startswith(PREFIX) and name not in OF_SOURCES
        if is_ours and not _is_not_a_setting(name, environ[name]):
            try:
                _put(found, environ, name)
            except SettingsError as error:
                found.errors.append(error)


def files_named(environ: Mapping[str, str]) -> list[Path]:
    """The files that variables name for secrets."""
    keys = {name: key_of_variable(name) for name in sorted(environ) if name.startswith(PREFIX)}
    return [Path(environ[name]) for name, key in keys.items() if _key_of_file(key) is not None]


def _put(found: Found, environ: Mapping[str, str], name: str) -> None:
    key, text = key_of_variable(name), environ[name]
    if (of_file := _key_of_file(key)) is not None:
        _demand_text(of_file, name, text)
        if variable_of(of_file) in environ:
            both = f"{name} and {variable_of(of_file)} are both set: drop one"
            raise SettingsError(both, of_file)
        key, text = of_file, _secret_of_file(of_file, name, text)
    elif field_of(key) is not None:
        _demand_text(key, name, text)
    found.put_text(key, text, f"environment variable {name}", show=variable_of)


def _key_of_file(key: str) -> str | None:
    """The secret that PENSTOCK_..._FILE names a file for, if it is one."""
    of_file = key.removesuffix("_file")
    info = field_of(of_file) if field_of(key) is None else None
    return of_file if info is not None and is_secret(info) else None


def _demand_text(key: str, name: str, text: str) -> None:
    # Nobody can tell whether an empty one stands for the default, or for a value that got lost.
    if not text:
        raise SettingsError(f"{name} is empty: give {key} a value, or unset the variable", key)


def _is_not_a_setting(name: str, value: str) -> bool:
    return name in NOT_SETTINGS or _is_injected(name, value)


def _is_injected(name: str, value: str) -> bool:
    if _SERVICE.fullmatch(name):
        return True
    port = _PORT.fullmatch(name)
    # PENSTOCK_HTTP_PORT=8080 is somebody's slip; Kubernetes says tcp://10.0.0.1:8080 there.
    return port is not None and (port[2] is not None or "://" in value)


def _secret_of_file(key: str, name: str, path: str) -> str:
    try:
        return text_of(Path(path))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(f"{name} names {path}, which can't be read: {why}", key) from None
