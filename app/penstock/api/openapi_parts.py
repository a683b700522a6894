"""Parts of the document that many calls share: rows, headers, path parameters, security, words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.docs import ASSETS
from penstock.api.prefer import WAIT_MAX_S
from penstock.api.problems import PROBLEMS
from penstock.domain.caller import GRANTS, Role
from penstock.domain.job import NAME_PATTERN

SECURITY = "token"  # the scheme's name

_TEXT: dict[str, Any] = {"type": "string"}
_PRINTABLE = "^[!-~]([ -~]{0,253}[!-~])?$"


def _header(description: str, example: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {**_TEXT, **schema}, "example": example}


PATH_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "id": {
        "description": "The id of the job, workflow or delivery.",
        "schema": {"type": "string", "format": "uuid"},
        "example": "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa",
    },
    "name": {
        "description": "The queue's name.",
        "schema": {"type": "string", "pattern": NAME_PATTERN},
        "example": "mail",
    },
    "slug": {
        "description": "The last part of the `type`.",
        "schema": {"type": "string", "enum": list(PROBLEMS)},
        "example": "not-found",
    },
    "file": {
        "description": "The file's name.",
        "schema": {"type": "string", "enum": sorted(ASSETS)},
        "example": "swagger-ui.css",
    },
}

REQUEST_HEADERS: Mapping[str, dict[str, Any]] = {
    "Prefer": _header(
        "`wait=N` (RFC 7240): hold the answer until the job or workflow is over, "
        f"{WAIT_MAX_S} s at most. What isn't understood is passed over.",
        "wait=1",
    ),
    "traceparent": _header(
        "W3C Trace Context: kept on the job and passed to its handler. One of another form is "
        "passed over.",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "tracestate": _header(
        "W3C Trace Context, with a traceparent: kept and passed on with it, up to 512 characters. "
        "One of another form is passed over.",
        "congo=t61rcWkgMzE",
    ),
    "Idempotency-Key": _header(
        "1 to 255 printable ASCII characters, your own for this request: sent again within 24 h "
        "with the same body, it gives the first answer again and stores nothing.",
        "signup-7f3a",
        pattern=_PRINTABLE,
    ),
    "If-None-Match": _header("An `ETag` that you have: answered with 304 if it still holds.", "*"),
}

RESPONSE_HEADERS: Mapping[str, dict[str, Any]] = {
    "X-Request-Id": _header(
        "Names this request in our logs: yours, if you sent one of 1 to 128 letters, digits and "
        "`._-`, else a new one.",
        "f3b0c4d29a1e4c7d8b6a5e41",
        pattern="^[A-Za-z0-9._-]{1,128}$",
    ),
    "Location": _header(
        "Where the new job or workflow is.",
        "/v1/jobs/01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa",
        format="uri-reference",
    ),
    "Preference-Applied": _header("The `wait` that was granted.", "wait=1"),
    "Idempotent-Replayed": _header(
        "This is the first answer to this `Idempotency-Key`, given again.", "true", enum=["true"]
    ),
    "Link": _header('The next page: `rel="next"`.', '</v1/jobs?cursor=…>; rel="next"'),
    "ETag": _header("What this version is called.", '"5c2f9f1be0aa"'),
    "WWW-Authenticate": _header("How to say who you are.", "Bearer"),
    "Allow": _header("The methods that this path takes.", "GET, POST"),
    "RateLimit": _header(
        "Where a rate limit counted this request: what is left (`r`), and seconds until all of it "
        "is there again (`t`).",
        '"jobs";r=999;t=1',
    ),
    "RateLimit-Policy": _header(
        "That limit: `q` in each `w` seconds, of `jobs`, `changes` or `reads`.",
        '"jobs";q=1000;w=60',
    ),
    "Retry-After": _header("Seconds to wait before trying again.", "1", pattern="^[0-9]+$"),
}
# Those that some answers of a kind lack; all others always come.
RATE_HEADERS = ("RateLimit", "RateLimit-Policy")
OPTIONAL = frozenset({"Preference-Applied", "Idempotent-Replayed", "Link", *RATE_HEADERS})
# Which header of the answer belongs to a header of the request.
ANSWERED_BY = {"Prefer": "Preference-Applied", "Idempotency-Key": "Idempotent-Replayed"}


@dataclass(frozen=True, slots=True)
class Gives:
    """One answer. `example` changes fields of the shape's own example, to tell this one's story."""

    says: str
    shape: Any = None  # None: text
    media: tuple[str, ...] = ("application/json",)
    headers: tuple[str, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """`name` is the operationId; `sends` are the request's headers, `samples` bodies to send."""

    name: str
    tag: str
    summary: str
    description: str
    gives: Mapping[int, Gives]
    problems: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)


def path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}


def header_parameter(name: str) -> dict[str, Any]:
    """A request's header, by reference."""
    return {"$ref": f"#/components/parameters/{name}"}


def header_parameters() -> dict[str, Any]:
    """The `components.parameters` of the document."""
    return {
        name: {"name": name, "in": "header", **header} for name, header in REQUEST_HEADERS.items()
    }


def headers(names: Iterable[str]) -> dict[str, Any]:
    """An answer's headers, by reference."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def header(name: str, *, required: bool) -> dict[str, Any]:
    """An answer's header where it is one of several answers that has it."""
    if required:
        return {"$ref": f"#/components/headers/{name}"}
    return {**RESPONSE_HEADERS[name], "required": False}


def response_headers() -> dict[str, Any]:
    """The `components.headers` of the document."""
    return {
        name: {**header, "required": name not in OPTIONAL}
        for name, header in RESPONSE_HEADERS.items()
    }


def security_scheme() -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": (
            "A JWT with `exp`, `sub`, `roles` (a list of the roles below) and, if it is not to "
            "open all queues, `queues` (names or globs such as `mail-*`). For trying things out: "
            "`penstock token --role operator`."
        ),
    }


def who_may(role: Role) -> str:
    """Which roles bring this one with them, in Markdown."""
    bearers = [f"`{bearer}`" for bearer in Role if role in GRANTS[bearer]]
    return f"Needs the role `{role}` (a token with {', '.join(bearers)} has it)."


def introduction() -> str:
    return f"""\
Penstock keeps jobs in PostgreSQL and runs them at least once. Get a token, submit a job, look at
it until it is over.

Times are RFC 3339 in UTC with milliseconds; durations are seconds and end in `_s`; ids of
jobs, workflows and workers are UUIDv7, those of deliveries mostly UUIDv4: take them as they are.
Fields and query parameters that nobody knows are refused, never passed over.

## States of a job

`scheduled` (its time is to come) → `ready` (waits for a slot) → `running` → `succeeded`, `dead`
(attempts exhausted, failed for good, or lost or crashed too often) or `cancelled`. A job that fails
with budget left is `scheduled` again. A job that depends on others is `blocked` until they are
over, and `skipped` if its `run_if` can't hold any more.

## Roles

{_roles()}
A job in a queue that the token's `queues` don't match isn't there (404).

## Problems

Whatever goes wrong is answered as `application/problem+json` (RFC 9457). Branch on its `type`:
each call says which it knows, and the schema `Problem` explains them all."""


def _roles() -> str:
    head = "| role | brings with it |\n| --- | --- |\n"
    return head + "".join(
        f"| `{role}` | {', '.join(f'`{r}`' for r in Role if r in GRANTS[role])} |\n"
        for role in Role
    )
