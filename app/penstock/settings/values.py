"""Sorts of values that settings have: each checks itself, and says what is wrong with it.

A validator answers its value or raises ValueError, whose text follows the setting's name.
"""

import re
import ssl
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from penstock.settings.key_source import KeySource

KIB = 1024
MIB = 1024 * KIB
DAY_S = 24 * 3600
JWT_SECRET_MIN_BYTES = 32
PORT_MAX = 65535
KEPT_MIN_S = 60  # readers and late log lines must be done with a job before it goes
KEPT_LONG_MIN_S = 7 * DAY_S  # migration 0016: younger entries of the audit log can't be deleted

_HOST = re.compile(
    r"(\[[^\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{0,5}))?"
)  # of a URL, with or without a port

Role = Literal["api", "scheduler", "worker", "relay"]


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value is there twice")
    return values


def _cidr(text: str) -> str:
    ip_network(text)  # raises ValueError with a clear text, e.g. "has host bits set"
    return text


def _demand_places(url: str) -> None:
    """A / or @ that belongs to the password would cut the URL elsewhere, and show a part of it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL") from None
    rest = parts.path + ("" if "@" in parts.netloc else parts.query + parts.fragment)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if parts.scheme != "unix" and ("@" in rest or not all(map(_is_place, hosts))):
        raise ValueError("must have its special characters as %XX, and 1 to 65535 as its port")


def _is_place(text: str) -> bool:
    place = _HOST.fullmatch(text)
    return place is not None and 0 < int(place["port"] or 1) <= PORT_MAX


def _dsn(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("postgres://", "postgresql://")):
        raise ValueError("must begin with postgres:// or postgresql://")
    _demand_places(secret.get_secret_value())
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    _demand_places(secret.get_secret_value())
    return secret


def _long_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < JWT_SECRET_MIN_BYTES:
        raise ValueError(f"must have at least {JWT_SECRET_MIN_BYTES} bytes")
    if secret.get_secret_value().lstrip().startswith(("-----BEGIN", "{")):
        raise ValueError("must be random text: a key in PEM or JWK form goes to auth.public_keys")
    return secret


def _told_apart(sources: tuple[KeySource, ...]) -> tuple[KeySource, ...]:
    """A token picks its key by algorithm and kid, so these must differ."""
    names = [(key.algorithm, key.kid) for source in sources for key in source.keys]
    for algorithm, kid in names:
        if names.count((algorithm, kid)) > 1:
            which = f"with the kid {kid}" if kid else "without a kid"
            raise ValueError(f"there are two {algorithm} keys {which}")
    return sources


def _kept(seconds: float) -> float:
    if 0 < seconds < KEPT_MIN_S:
        raise ValueError(f"must be 0, which means for ever, or at least {KEPT_MIN_S}")
    return seconds


def _ca_file(path: str) -> str:
    """Read once here: later it would look as if the server were away."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(
            "has no certificate in PEM form: it needs -----BEGIN CERTIFICATE----- blocks; "
            "leave it out to trust the system's"
        ) from None
    except OSError as error:
        raise ValueError(
            f"can't be read: {error.strerror}; name a file that is there, "
            "or leave it out to trust the system's"
        ) from None
    return path


def _kept_long(seconds: float) -> float:
    if 0 < seconds < KEPT_LONG_MIN_S:
        raise ValueError("must be 0, which means for ever, or at least 604800, which is 7 days")
    return seconds


Cidr = Annotated[str, AfterValidator(_cidr)]
ImportName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=200)]
CaFile = Annotated[str, Field(min_length=1), AfterValidator(_ca_file)]
KeptLong = Annotated[float, Field(ge=0, le=36_500 * DAY_S), AfterValidator(_kept_long)]
Kept = Annotated[float, Field(ge=0, le=36_500 * DAY_S), AfterValidator(_kept)]
QueueGlob = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:*?\[\]!-]+$", max_length=100)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
LongSecret = Annotated[SecretStr, AfterValidator(_long_secret)]
PublicKeys = Annotated[tuple[KeySource, ...], AfterValidator(_told_apart)]
Roles = Annotated[tuple[Role, ...], AfterValidator(_unique)]
