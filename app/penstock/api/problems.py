"""Every way in which the door says no: RFC 9457 problem documents.

In: an exception, ours or one from a room behind. Out: one `Problem`, rendered by `answer`.
Always holds: a `type` is a row of `PROBLEMS`, clients may branch on it; a detail says what to do
and never repeats what was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from penstock.domain.errors import (
    JobNotFound,
    StoreUnavailable,
    TooManyQueues,
    Unavailable,
    WrongState,
)

ERRORS_MAX = 100  # fields named in one answer


class Slug(NamedTuple):
    status: HTTPStatus
    title: str


PROBLEMS: Mapping[str, Slug] = {
    "bad-request": Slug(HTTPStatus.BAD_REQUEST, "Not a valid request"),
    "not-json": Slug(HTTPStatus.BAD_REQUEST, "The body isn't JSON"),
    "unknown-query-parameter": Slug(HTTPStatus.BAD_REQUEST, "Unknown query parameter"),
    "unauthenticated": Slug(HTTPStatus.UNAUTHORIZED, "A valid token is needed"),
    "forbidden": Slug(HTTPStatus.FORBIDDEN, "The token doesn't allow this"),
    "forbidden-queue": Slug(HTTPStatus.FORBIDDEN, "The token doesn't open this queue"),
    "not-found": Slug(HTTPStatus.NOT_FOUND, "Nothing is here"),
    "method-not-allowed": Slug(HTTPStatus.METHOD_NOT_ALLOWED, "Not with this method"),
    "request-timeout": Slug(HTTPStatus.REQUEST_TIMEOUT, "The body came too slowly"),
    "wrong-state": Slug(HTTPStatus.CONFLICT, "The job's state doesn't allow this"),
    "payload-too-large": Slug(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported-media-type": Slug(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Not this kind of body"),
    "expectation-failed": Slug(HTTPStatus.EXPECTATION_FAILED, "Unknown expectation"),
    "validation-failed": Slug(HTTPStatus.UNPROCESSABLE_ENTITY, "The body breaks a rule"),
    "too-many-queues": Slug(HTTPStatus.UNPROCESSABLE_ENTITY, "Too many queues"),
    "not-supported-yet": Slug(HTTPStatus.UNPROCESSABLE_ENTITY, "Not supported yet"),
    "internal-error": Slug(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of ours"),
    "store-unavailable": Slug(HTTPStatus.SERVICE_UNAVAILABLE, "Out of reach for now"),
    "overloaded": Slug(HTTPStatus.SERVICE_UNAVAILABLE, "Too busy for now"),
    "not-ready": Slug(HTTPStatus.SERVICE_UNAVAILABLE, "Not ready"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One field at fault: an RFC 6901 pointer into the request's body, and what is wrong."""

    pointer: str
    detail: str


class Problem(Exception):
    """A refusal, raised anywhere at the door. `members` are added to the document as they are."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}
        self.members = members or {}

    @property
    def status(self) -> HTTPStatus:
        return PROBLEMS[self.slug].status


def named(slug: str, faults: Sequence[Fault]) -> Problem:
    """A refusal that names the fields at fault, 100 of them at most."""
    first = faults[0]
    detail = f"{first.pointer or 'the body'}: {first.detail}"
    if len(faults) > ERRORS_MAX:
        detail = f"more than {ERRORS_MAX} fields are at fault, the first: {detail}"
    elif len(faults) > 1:
        detail = f"{len(faults)} fields are at fault, the first: {detail}"
    return Problem(slug, detail, faults=faults[:ERRORS_MAX])


def invalid(*faults: Fault) -> Problem:
    """422 for fields that break a rule."""
    return named("validation-failed", faults)


def not_found() -> Problem:
    """404, the same for what doesn't exist and what the caller may not see."""
    return Problem("not-found", "there is nothing here, or nothing that you may see")


def problem_of(error: Exception) -> Problem | None:
    """What an error of the rooms behind means to the caller; None for a fault of ours."""
    match error:
        case Problem():
            return error
        case JobNotFound():
            return not_found()
        case WrongState():
            return Problem("wrong-state", str(error), members={"state": error.state})
        case TooManyQueues():
            return Problem("too-many-queues", str(error))
        case StoreUnavailable(unknown=True):
            members = {"outcome": "unknown"}
            return _unavailable(error, "the request may have been carried out", members)
        case Unavailable():
            return _unavailable(error, "nothing has been done", {})
        case _:
            return None


def _unavailable(error: Unavailable, done: str, members: dict[str, str]) -> Problem:
    detail = f"{error.service} is out of reach; {done}; try again"
    return Problem("store-unavailable", detail, headers={"Retry-After": "1"}, members=members)


def answer(problem: Problem) -> web.Response:
    """The problem as a response of type application/problem+json."""
    slug = PROBLEMS[problem.slug]
    body: dict[str, Any] = {
        "type": f"/problems/{problem.slug}",
        "title": slug.title,
        "status": slug.status.value,
        "detail": problem.detail,
        **problem.members,
    }
    if problem.faults:
        body["errors"] = [{"pointer": f.pointer, "detail": f.detail} for f in problem.faults]
    return web.Response(
        status=slug.status,
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        headers={"Content-Type": "application/problem+json", **problem.headers},
    )
