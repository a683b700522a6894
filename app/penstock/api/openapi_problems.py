"""How the document speaks of refusals: what each type of problem asks of the caller, an example.

In: rows of `PROBLEMS`. Out: responses for the document. Always holds: an example is rendered by
the code that renders the problems themselves.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.api import openapi_parts as parts
from penstock.api.problems import PROBLEMS, Fault, Problem, document, invalid, named, not_found
from penstock.api.routes import Route

_HOLDER = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"
_EXAMPLES: Mapping[str, Problem] = {
    "not-json": Problem("not-json", "the body isn't JSON: unexpected end of data: line 1 column 9"),
    "unknown-query-parameter": Problem(
        "unknown-query-parameter", "there is no parameter 'que' here"
    ),
    "unauthenticated": Problem("unauthenticated", "the token has expired"),
    "forbidden": Problem("forbidden", "this needs the role operator"),
    "forbidden-queue": named("forbidden-queue", [Fault("/queue", "is not open to this token")]),
    "not-found": not_found(),
    "duplicate-job": named(
        "duplicate-job",
        [Fault("/unique_key", f"is held by the job {_HOLDER}")],
        {"job_id": _HOLDER},
    ),
    "wrong-state": Problem(
        "wrong-state",
        "the job is succeeded; only one that isn't over can be cancelled",
        members={"state": "succeeded"},
    ),
    "validation-failed": invalid(
        Fault("/priority", "must be at most 9"), Fault("/colour", "is not a known field")
    ),
    "store-unavailable": Problem(
        "store-unavailable",
        "PostgreSQL is out of reach; the request may have been carried out; try again",
        members={"outcome": "unknown"},
    ),
    "not-ready": Problem(
        "not-ready",
        "PostgreSQL is out of reach",
        members={
            "ready": False,
            "reasons": ["PostgreSQL is out of reach"],
            "degraded": [],
            "loops": {"promoter": 0.12},
        },
    ),
}

# What a call can be refused for by what it is; the rest stands in the table of calls.
ANY = ("bad-request", "internal-error", "overloaded")
WITH_TOKEN = (
    *("unknown-query-parameter", "unauthenticated", "forbidden", "store-unavailable"),
    *("rate-limited", "keys-unavailable"),
)
WITH_QUERY = ("bad-query-parameter",)
IN_PAGES = ("bad-cursor",)
WITH_BODY = (
    *("not-json", "request-timeout", "payload-too-large", "unsupported-media-type"),
    *("expectation-failed", "validation-failed"),
)
BY_PATH = ("not-found",)  # where a part of the path varies
OF_NO_CALL = ("method-not-allowed",)

# Headers that come with a problem.
HEADERS: Mapping[str, str] = {
    "unauthenticated": "WWW-Authenticate",
    "method-not-allowed": "Allow",
    "idempotency-key-in-progress": "Retry-After",
    "store-unavailable": "Retry-After",
    "overloaded": "Retry-After",
    "keys-unavailable": "Retry-After",
    "rate-limited": "Retry-After",
    "not-ready": "Retry-After",
}


def slugs(route: Route, more: Iterable[str]) -> set[str]:
    """What a call can be refused for: by what its route is, and `more`."""
    found = {*ANY, *more}
    if route.role is not None:
        found |= set(WITH_TOKEN)
    if route.asks is not None:
        found |= set(WITH_QUERY)
    if is_paged(route):
        found |= set(IN_PAGES)
    if route.method != "GET":
        found |= set(WITH_BODY)
    if "{" in route.path:
        found |= set(BY_PATH)
    return found


def is_paged(route: Route) -> bool:
    """Whether the call answers a page at a time."""
    return route.asks is not None and "cursor" in route.asks.model_fields


def by_status(slugs: Iterable[str]) -> dict[int, list[str]]:
    """The slugs in the order of the table, by the status that they are answered with."""
    wanted = set(slugs)
    found: dict[int, list[str]] = {}
    for slug, row in PROBLEMS.items():
        if slug in wanted:
            found.setdefault(row.status.value, []).append(slug)
    return found


def response(status: int, slugs: list[str]) -> dict[str, Any]:
    """A response object for these problems, which share one status."""
    headers = {HEADERS[slug]: all(s in HEADERS for s in slugs) for slug in slugs if slug in HEADERS}
    types = [f"/problems/{slug}" for slug in slugs]
    return {
        "description": "\n\n".join(f"`{slug}`: {_row(slug)}" for slug in slugs),
        "headers": {
            **parts.headers(["X-Request-Id", *parts.RATE_HEADERS]),
            **{name: parts.header(name, required=always) for name, always in headers.items()},
        },
        "content": {
            "application/problem+json": {
                "schema": {
                    "$ref": "#/components/schemas/Problem",
                    "properties": {"type": {"enum": types}, "status": {"const": status}},
                },
                "examples": {slug: {"value": example(slug)} for slug in slugs},
            }
        },
    }


def example(slug: str) -> dict[str, Any]:
    """A problem of this type as it is answered."""
    return document(_EXAMPLES.get(slug) or Problem(slug, PROBLEMS[slug].advice))


def table() -> str:
    """All types, in Markdown, for the schema of problems."""
    head = "| type | status | what to do |\n| --- | --- | --- |\n"
    return head + "".join(
        f"| `{slug}` | {row.status.value} | {_row(slug)} |\n" for slug, row in PROBLEMS.items()
    )


def _row(slug: str) -> str:
    return f"{PROBLEMS[slug].title}. {PROBLEMS[slug].advice}"
