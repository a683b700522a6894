"""Settings in AWS SSM Parameter Store: below PENSTOCK_SSM_PATH, the tree as a path.

In: the path; region, endpoint and credentials as all of AWS' tools find them. Out: the parameters,
decrypted. Blocks: at a start, or in a thread. Always holds: without a path boto3 isn't imported,
what goes wrong is `SourceUnavailable`, and no value is ever told.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from penstock.settings.found import Found
from penstock.settings.names import SettingsError, SourceUnavailable, field_of, holds

SSM_PATH = "PENSTOCK_SSM_PATH"
PARAMETERS_MAX = 5000
_PAGE = 10  # GetParametersByPath gives no more
_CONNECT_S, _READ_S, _TRIES = 3, 5, 3
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
)
_WAYS_OUT = {
    "AccessDeniedException": "allow ssm:GetParametersByPath there, and kms:Decrypt for its key",
    "ThrottlingException": "there are too many requests in this account: try again later",
    "ExpiredTokenException": f"the credentials are too old: {_CREDENTIALS}",
    "UnrecognizedClientException": f"the credentials are wrong: {_CREDENTIALS}",
    "InvalidClientTokenId": f"the credentials are wrong: {_CREDENTIALS}",
    "InvalidSignatureException": f"the credentials are wrong: {_CREDENTIALS}",
    "InvalidKeyId": "the key that a SecureString was encrypted with is gone or disabled",
}
_WITHOUT = {
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "CredentialRetrievalError": _CREDENTIALS,
    "TokenRetrievalError": _CREDENTIALS,
    "SSOTokenLoadError": _CREDENTIALS,
    "UnauthorizedSSOTokenError": _CREDENTIALS,
    "ProfileNotFound": "AWS_PROFILE names a profile that isn't there",
    "NoRegionError": "set AWS_REGION",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """`key`: what it sets; `is_list`: it is a StringList."""

    key: str
    name: str
    value: str = field(repr=False)
    is_list: bool = False


Parameters = tuple[Parameter, ...]


def fetch(environ: Mapping[str, str]) -> Parameters:
    """All parameters below PENSTOCK_SSM_PATH as they are now; none where it isn't set. Raises
    SettingsError, which is SourceUnavailable for all but a wrong path and boto3 missing."""
    return _fetch(*_place(environ)) if SSM_PATH in environ else ()


def fetched(environ: Mapping[str, str]) -> Parameters:
    """As `fetch`, but once in a process: its start asks for its settings several times."""
    return _fetched(*_place(environ)) if SSM_PATH in environ else ()


def _place(environ: Mapping[str, str]) -> tuple[str, str | None, str | None]:
    path = environ[SSM_PATH].removesuffix("/")
    if not _PATH.fullmatch(path):
        raise SettingsError(f"{SSM_PATH} is {path!r}: it must be a path like /penstock/production")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return path, region, environ.get("AWS_ENDPOINT_URL_SSM") or environ.get("AWS_ENDPOINT_URL")


def _fetch(path: str, region: str | None, endpoint: str | None) -> Parameters:
    with _told(path):
        client = _client(region, endpoint)
        found = tuple(_parameter(path, one) for one in _pages(client, path))
        region = client.meta.region_name
    if not found:
        raise SourceUnavailable(
            f"{SSM_PATH} is {path}, but there is no parameter below it in {region}: "
            "put some there, or unset it"
        )
    return found


_fetched = cache(_fetch)


def put_parameters(found: Found, parameters: Parameters) -> None:
    """Adds what the parameters set."""
    for one in parameters:
        origin = f"SSM parameter {one.name}"
        info = field_of(one.key)
        if not one.is_list or info is None:
            found.put_text(one.key, one.value.strip(), origin)
        elif holds(info.annotation, tuple):
            found.put(one.key, [item.strip() for item in one.value.split(",")], origin)
        else:
            found.blame(f"{origin}: {one.key} is no list: make it a String", one.key)


def _pages(client: Any, path: str) -> Iterator[Mapping[str, str]]:
    pages = client.get_paginator("get_parameters_by_path").paginate(
        Path=path, Recursive=True, WithDecryption=True, PaginationConfig={"PageSize": _PAGE}
    )
    count = 0
    for page in pages:
        count += len(page["Parameters"])
        if count > PARAMETERS_MAX:
            raise SourceUnavailable(
                f"{SSM_PATH} is {path}, which has more than {PARAMETERS_MAX} parameters"
            )
        yield from page["Parameters"]


def _parameter(path: str, one: Mapping[str, str]) -> Parameter:
    name = one["Name"]
    key = name.removeprefix(f"{path}/").replace("/", ".")
    if not isinstance(one["Value"], str):
        raise TypeError
    return Parameter(key, name, one["Value"], one["Type"] == "StringList")


@cache  # making one takes a fifth of a second; it may be used from any thread
def _client(region: str | None, endpoint: str | None) -> Any:
    import boto3  # noqa: PLC0415 # much to import for what most don't need
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": _TRIES, "mode": "standard"},
    )
    session = boto3.session.Session(region_name=region)
    return session.client("ssm", endpoint_url=endpoint, config=config)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turns what AWS' client says into the words of an operator."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError:
        raise SettingsError(
            f"{SSM_PATH} is set, but boto3 isn't installed: pip install 'penstock[aws]', "
            f"or unset {SSM_PATH}"
        ) from None
    try:
        yield
    except ClientError as error:
        told = error.response["Error"]
        code, way_out = told["Code"], _WAYS_OUT.get(told["Code"])
        why = f"{code}: {way_out or told.get('Message', '')}"
    except (BotoCoreError, ValueError) as error:  # ValueError: of an endpoint that is no URL
        why = _WITHOUT.get(type(error).__name__) or str(error)
    except (KeyError, AttributeError, TypeError):  # a page of HTML, say, or JSON of another service
        why = "what answers there is no Parameter Store: see AWS_ENDPOINT_URL"
    else:
        return
    told = f"{SSM_PATH} is {path}, which can't be read: {_one_line(why)}"
    raise SourceUnavailable(told) from None


def _one_line(text: str) -> str:
    """What another server says, without what a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
