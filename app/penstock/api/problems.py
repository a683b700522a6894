"""Every way in which the door says no: RFC 9457 problem documents.

In: an exception, ours or one from a room behind. Out: one `Problem`, rendered by `answer`.
Always holds: a `type` is a row of `PROBLEMS`, clients may branch on it; a detail says what to do
and repeats no more of what was sent than a name, cut short.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from penstock.domain.errors import (
    Contended,
    DuplicateJob,
    JobNotFound,
    KeyBusy,
    KeyReused,
    NameTaken,
    ParentNotFound,
    StoreUnavailable,
    TooLarge,
    TooManyQueues,
    Unavailable,
    WorkflowNotFound,
    WrongState,
    WrongWorkflowState,
)
from penstock.domain.graph import short
from penstock.domain.ids import text

ERRORS_MAX = 100  # fields named in one answer
RETRY_AFTER_MAX_S = 3


class Slug(NamedTuple):
    """`advice`: what the caller should do; shown at the `type`'s address and in the document."""

    status: HTTPStatus
    title: str
    advice: str


PROBLEMS: Mapping[str, Slug] = {
    "bad-request": Slug(
        HTTPStatus.BAD_REQUEST,
        "Not a valid request",
        "Mend what `detail` names: this is not HTTP/1.1, or the URL can't be read.",
    ),
    "not-json": Slug(
        HTTPStatus.BAD_REQUEST,
        "The body isn't JSON",
        "Send one JSON value in UTF-8.",
    ),
    "unknown-query-parameter": Slug(
        HTTPStatus.BAD_REQUEST,
        "Unknown query parameter",
        "Leave it out: only documented parameters are taken.",
    ),
    "bad-query-parameter": Slug(
        HTTPStatus.BAD_REQUEST,
        "A query parameter breaks a rule",
        "Mend the parameter that `parameter` names.",
    ),
    "bad-cursor": Slug(
        HTTPStatus.BAD_REQUEST,
        "Not a cursor of this query",
        "Take `next_cursor` as it is, with the same filters; or begin anew.",
    ),
    "unauthenticated": Slug(
        HTTPStatus.UNAUTHORIZED,
        "A valid token is needed",
        "Send `Authorization: Bearer <JWT>` once, with a token that is valid now.",
    ),
    "forbidden": Slug(
        HTTPStatus.FORBIDDEN,
        "The token doesn't allow this",
        "Ask with a token that has the role which `detail` names.",
    ),
    "forbidden-queue": Slug(
        HTTPStatus.FORBIDDEN,
        "The token doesn't open this queue",
        "Ask with a token whose `queues` match, or submit to another queue.",
    ),
    "not-found": Slug(
        HTTPStatus.NOT_FOUND,
        "Nothing is here",
        "Check the path and the id; what the token doesn't open isn't there either.",
    ),
    "method-not-allowed": Slug(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Not with this method",
        "Use a method that `Allow` names.",
    ),
    "rate-limited": Slug(
        HTTPStatus.TOO_MANY_REQUESTS,
        "More than you may ask",
        "Wait as long as `Retry-After` says; `RateLimit` on every answer tells what is left.",
    ),
    "request-timeout": Slug(
        HTTPStatus.REQUEST_TIMEOUT,
        "The body came too slowly",
        "Send the whole body sooner.",
    ),
    "bad-idempotency-key": Slug(
        HTTPStatus.BAD_REQUEST,
        "Not an Idempotency-Key",
        "Send 1 to 255 printable ASCII characters, once.",
    ),
    "idempotency-key-in-progress": Slug(
        HTTPStatus.CONFLICT,
        "The first request is under way",
        "The first request with this key is under way: try again.",
    ),
    "idempotency-key-reuse": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The key had another body",
        "The key belongs to another body: use a new one for each request.",
    ),
    "duplicate-job": Slug(
        HTTPStatus.CONFLICT,
        "A live job has this unique_key",
        "`job_id` has the `unique_key` until it is over; follow that one.",
    ),
    "gone": Slug(
        HTTPStatus.GONE,
        "It was here and is gone",
        "What `detail` names was the answer and has been deleted; with a new key, submit anew.",
    ),
    "wrong-state": Slug(
        HTTPStatus.CONFLICT,
        "Its state doesn't allow this",
        "Nothing was changed; `state` says where the job or workflow stands.",
    ),
    "endpoint-disabled": Slug(
        HTTPStatus.CONFLICT,
        "The endpoint was given up",
        "Enable it first with `POST /v1/endpoints/enable`; nothing was changed.",
    ),
    "name-taken": Slug(
        HTTPStatus.CONFLICT,
        "The workflow has a job of this name",
        "Choose other names for the jobs that `errors` names; nothing was stored.",
    ),
    "workflow-too-large": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Too many jobs or dependencies",
        "Split it: a job of kind `workflow` is a workflow of its own.",
    ),
    "payload-too-large": Slug(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The body is too large",
        "Send less at once, or submit where large data lies instead of the data.",
    ),
    "unsupported-media-type": Slug(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Not this kind of body",
        "Send `application/json` in UTF-8, without `Content-Encoding`.",
    ),
    "expectation-failed": Slug(
        HTTPStatus.EXPECTATION_FAILED,
        "Unknown expectation",
        "Leave `Expect` out, or send `100-continue`.",
    ),
    "validation-failed": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The body breaks a rule",
        "Mend the fields that `errors` names; nothing was stored.",
    ),
    "too-many-queues": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Too many queues",
        "Use a queue that exists, or have the operator raise `queue.count_max`.",
    ),
    "not-supported-yet": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Not supported yet",
        "Leave out what is named: the contract has it, this version has not.",
    ),
    "settings-refused": Slug(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The settings are wrong",
        "Mend what `errors` names, each with its source; until then the old settings count.",
    ),
    "internal-error": Slug(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "A fault of ours",
        "Report it with the answer's `X-Request-Id`.",
    ),
    "store-unavailable": Slug(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Out of reach for now",
        "Try again; with `outcome: unknown` it may have been carried out.",
    ),
    "keys-unavailable": Slug(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The token can't be checked for now",
        "Try again: the keys of tokens can't be fetched from who publishes them.",
    ),
    "overloaded": Slug(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too busy for now",
        "Try again after `Retry-After`.",
    ),
    "not-ready": Slug(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Not ready",
        "Send requests to another replica; `reasons` say what is missing.",
    ),
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


class Overloaded(Problem):
    """503: there is too much to do just now. Callers come back spread over `Retry-After`."""

    def __init__(self, detail: str, after_s: int | None = None) -> None:
        after_s = after_s or random.randint(1, RETRY_AFTER_MAX_S)
        super().__init__("overloaded", detail, headers={"Retry-After": str(after_s)})


def named(slug: str, faults: Sequence[Fault], members: Mapping[str, Any] | None = None) -> Problem:
    """A refusal that names the fields at fault, 100 of them at most."""
    first = faults[0]
    detail = f"{first.pointer or 'the body'}: {first.detail}"
    if len(faults) > ERRORS_MAX:
        detail = f"more than {ERRORS_MAX} fields are at fault, the first: {detail}"
    elif len(faults) > 1:
        detail = f"{len(faults)} fields are at fault, the first: {detail}"
    return Problem(slug, detail, faults=faults[:ERRORS_MAX], members=members)


def invalid(*faults: Fault) -> Problem:
    """422 for fields that break a rule."""
    return named("validation-failed", faults)


def not_found() -> Problem:
    """404, the same for what doesn't exist and what the caller may not see."""
    return Problem("not-found", "there is nothing here, or nothing that you may see")


def duplicate(error: DuplicateJob, place: str) -> Problem:
    """409 with the id of the (first) job that holds the key. `place`: of job {} in the body."""
    faults = [
        Fault(f"{place.format(i)}/unique_key", f"is held by the job {text(holder)}")
        for i, holder in error.holders.items()
    ]
    first = text(next(iter(error.holders.values())))
    return named("duplicate-job", faults, {"job_id": first})


def problem_of(error: Exception) -> Problem | None:
    """What an error of the rooms behind means to the caller; None for a fault of ours."""
    match error:
        case Problem():
            return error
        case JobNotFound() | WorkflowNotFound():
            return not_found()
        case DuplicateJob() | KeyBusy() | KeyReused():
            return _taken(error)
        case NameTaken() | ParentNotFound() | TooLarge():
            return _unfit(error)
        case WrongState() | WrongWorkflowState():
            return _standing(error)
        case TooManyQueues():
            return Problem("too-many-queues", str(error))
        case Contended():
            return Problem("overloaded", f"{error}; try again", headers={"Retry-After": "1"})
        case StoreUnavailable(unknown=True):
            members = {"outcome": "unknown"}
            return _unavailable(error, "the request may have been carried out", members)
        case Unavailable():
            return _unavailable(error, "nothing has been done", {})
        case _:
            return None


def _taken(error: DuplicateJob | KeyBusy | KeyReused) -> Problem:
    match error:
        case DuplicateJob():
            holder = text(error.holders[0])
            return Problem("duplicate-job", f"{error}: {holder}", members={"job_id": holder})
        case KeyBusy():
            why = f"{error}: send this one again when that one is answered"
            return Problem("idempotency-key-in-progress", why, headers={"Retry-After": "1"})
        case KeyReused():
            return Problem("idempotency-key-reuse", f"{error}: use a new key for a new request")


def _standing(error: WrongState | WrongWorkflowState) -> Problem:
    members = {"state": error.state}
    if isinstance(error, WrongWorkflowState) and error.holder is not None:
        members["job_id"] = text(error.holder)
    return Problem("wrong-state", str(error), members=members)


def _unfit(error: NameTaken | ParentNotFound | TooLarge) -> Problem:
    match error:
        case NameTaken():
            taken = "the workflow has a job {!r} already"
            faults = [
                Fault(f"/jobs/{i}/name", taken.format(short(name)))
                for i, name in error.names.items()
            ]
            return named("name-taken", faults)
        case ParentNotFound():
            return no_parents(error, "/jobs/{}")
        case TooLarge():
            return Problem("workflow-too-large", f"{error}")


def no_parents(error: ParentNotFound, place: str) -> Problem:
    """422 for jobs that depend on what isn't there. `place`: of job {} in the body."""
    faults = [
        Fault(f"{place.format(i)}/depends_on/{n}", f"there is no job {text(id_)}")
        for (i, n), id_ in error.places.items()
    ]
    return named("validation-failed", faults)


def _unavailable(error: Unavailable, done: str, members: dict[str, str]) -> Problem:
    detail = f"{error.service} is out of reach; {done}; try again"
    return Problem("store-unavailable", detail, headers={"Retry-After": "1"}, members=members)


def document(problem: Problem) -> dict[str, Any]:
    """The problem as RFC 9457 writes it down."""
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
    return body


def answer(problem: Problem) -> web.Response:
    """The problem as a response of type application/problem+json."""
    return web.Response(
        status=problem.status,
        body=orjson.dumps(document(problem), option=orjson.OPT_APPEND_NEWLINE),
        headers={"Content-Type": "application/problem+json", **problem.headers},
    )
