"""Query strings: one model for each list, one parser for all, one cursor.

In: the query string as it came. Out: a validated model, or 400. Always holds: a parameter that
nobody knows, that stands twice where it mayn't or that can't be read is refused, never ignored: a
typo must not widen a query.
"""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import unquote_to_bytes

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from penstock.api.fields import ErrorType, Fingerprint, JobRef, Name, Tag, instant, said_of
from penstock.api.problems import Problem
from penstock.api.workflow_body import WorkflowName
from penstock.domain.audit_log import OBJECT_MAX, Action, EntryOutcome, Object
from penstock.domain.caller import Caller
from penstock.domain.delivery import Outcome
from penstock.domain.effect import Channel
from penstock.domain.ids import BYTES
from penstock.domain.job import State
from penstock.domain.workflow import WorkflowState

LIMIT_DEFAULT, LIMIT_MAX = 50, 200
REPEATS_MAX = 100  # values of one name
_ECHO_MAX = 64  # characters of a caller's own names that we repeat
_BOUND_BYTES = 8  # of a cursor: the query that it belongs to
_POSITION_MAX = 64  # bytes of a cursor: where the last page ended

_PLACE = struct.Struct(f">q{BYTES}s")  # microseconds since 1970, id

_EPOCH, _US, _US_MAX = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1), 2**57

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"[0-9]{1,6}")


def _digits(value: object) -> object:
    """Pydantic would take " 5_0 " for a number."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticCustomError("digits", "must be a number in digits")
    return value


def _instant(value: object) -> datetime:
    return instant(value, hint=" (a + is written %2B in a URL)")


Text = Annotated[str, Field(min_length=1, max_length=OBJECT_MAX, pattern=r"^[^\x00]*$")]
Instant = Annotated[datetime, BeforeValidator(_instant)]


class PageQuery(BaseModel):
    """What every list takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, BeforeValidator(_digits)] = Field(
        LIMIT_DEFAULT, ge=1, le=LIMIT_MAX, description="most items of the page"
    )
    cursor: str | None = Field(
        None, max_length=128, description="`next_cursor` of the page before, of the same query"
    )

    def filters(self) -> dict[str, Any]:
        """What a cursor is bound to: all that decides which items there are."""
        return self.model_dump(mode="json", exclude={"limit", "cursor", "include"})


class QueuesQuery(BaseModel):
    """Which queues are meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: list[Name] = Field(
        [], max_length=REPEATS_MAX, description="one of these queues; none: all that you see"
    )


class WorkflowsQuery(PageQuery):
    """Filters of workflows, as those of jobs."""

    state: list[WorkflowState] = Field(
        [], max_length=REPEATS_MAX, description="in one of these states"
    )
    name: list[WorkflowName] = Field(
        [], max_length=REPEATS_MAX, description="called one of these names"
    )


class GroupsQuery(PageQuery):
    """Filters of groups of dead letters."""

    queue: list[Name] = Field([], max_length=REPEATS_MAX, description="died in one of these queues")
    kind: list[Name] = Field([], max_length=REPEATS_MAX, description="of one of these kinds")
    error_type: list[ErrorType] = Field(
        [], max_length=REPEATS_MAX, description="of one of these types of error"
    )
    job_id: JobRef | None = Field(None, description="of this job")
    workflow_id: JobRef | None = Field(None, description="of the jobs of this workflow")


class LettersQuery(GroupsQuery):
    """Filters of dead letters."""

    fingerprint: list[Fingerprint] = Field(
        [], max_length=REPEATS_MAX, description="of one of these groups"
    )
    which: Literal["open", "resolved", "all"] = Field(
        "open", description="those that nobody dealt with (`open`), or also others"
    )


class AuditQuery(PageQuery):
    """Filters of the audit log."""

    actor: list[Text] = Field([], max_length=REPEATS_MAX, description="by one of these callers")
    action: list[Action] = Field([], max_length=REPEATS_MAX, description="one of these actions")
    object: list[Object] = Field(
        [], max_length=REPEATS_MAX, description="done to one of these sorts of things"
    )
    object_id: list[Text] = Field(
        [], max_length=REPEATS_MAX, description="done to one of these: ids, or names of queues"
    )
    queue: list[Name] = Field([], max_length=REPEATS_MAX, description="about one of these queues")
    outcome: list[EntryOutcome] = Field(
        [], max_length=REPEATS_MAX, description="that went like this"
    )
    request_id: list[Text] = Field(
        [], max_length=REPEATS_MAX, description="by one of these requests (`X-Request-Id`)"
    )
    created_after: Instant | None = Field(None, description="done then or later")
    created_before: Instant | None = Field(None, description="done before then")


class DeliveriesQuery(PageQuery):
    """Filters of deliveries."""

    job_id: JobRef | None = Field(None, description="of this job")
    workflow_id: JobRef | None = Field(None, description="of this workflow itself")
    channel: list[Channel] = Field(
        [], max_length=REPEATS_MAX, description="by one of these channels"
    )
    outcome: list[Outcome] = Field([], max_length=REPEATS_MAX, description="that stand like this")


class JobsQuery(PageQuery):
    """Filters of jobs: any of the values of one name, and all of the names."""

    queue: list[Name] = Field([], max_length=REPEATS_MAX, description="in one of these queues")
    state: list[State] = Field([], max_length=REPEATS_MAX, description="in one of these states")
    kind: list[Name] = Field([], max_length=REPEATS_MAX, description="of one of these kinds")
    tag: list[Tag] = Field([], max_length=REPEATS_MAX, description="with one of these tags")
    workflow_id: JobRef | None = Field(None, description="of this workflow")
    created_after: Instant | None = Field(None, description="created then or later")
    created_before: Instant | None = Field(None, description="created before then")
    include: Literal["payload", "result", "payload,result", "result,payload"] | None = Field(
        None, description="what is left out of lists otherwise; such pages may be short"
    )


def parse(model: type[BaseModel], query: str) -> BaseModel:
    """The parameters of a raw query string. Raises 400."""
    values: dict[str, Any] = {}
    for pair in query.split("&"):
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition("=")
        name, value = _decoded(raw_name), _decoded(raw_value)
        field = model.model_fields.get(name)
        if field is None:
            raise unknown(name, model)
        if get_origin(field.annotation) is list:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise bad(name, "stands twice, which it may not")
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise bad(str(first["loc"][0]), said_of(first)) from None


def unknown(name: str, model: type[BaseModel] | None) -> Problem:
    """400 for a parameter that this call doesn't have."""
    known = f"; there are {', '.join(model.model_fields)}" if model else ""
    detail = f"there is no parameter {name[:_ECHO_MAX]!r} here{known}"
    return Problem("unknown-query-parameter", detail)


def bad(name: str, why: str) -> Problem:
    """400 for a parameter with a value that can't be."""
    return Problem("bad-query-parameter", f"{name}: {why}", members={"parameter": name})


class Cursors:
    """Makes and reads the cursors of one query of one caller.

    A cursor says where the last page ended, and which query it belongs to: its name, its filters
    and the queues that the caller may see. It is not signed: a forged one names another place to go
    on from, in a list of which its bearer may see every item anyway.
    """

    def __init__(self, name: str, query: PageQuery, caller: Caller) -> None:
        text = orjson.dumps([name, query.filters(), caller.queues], option=orjson.OPT_SORT_KEYS)
        self._bound = blake2b(text, digest_size=_BOUND_BYTES).digest()
        self._cursor = query.cursor

    def position(self, size: int | None = None) -> bytes | None:
        """Where to go on, in `size` bytes if that is given; None at the start. Raises 400."""
        if self._cursor is None:
            return None
        try:
            raw = base64.b64decode(self._cursor + "=" * (-len(self._cursor) % 4), b"-_", True)
        except (binascii.Error, ValueError):
            raise _bad_cursor() from None
        bound, position = raw[:_BOUND_BYTES], raw[_BOUND_BYTES:]
        is_ours = bound == self._bound and self.cursor(position) == self._cursor
        if not is_ours or not position or size not in (None, len(position)):
            raise _bad_cursor()
        return position

    def place(self) -> tuple[datetime, bytes] | None:
        """As `position`, in a list by time and id."""
        position = self.position(_PLACE.size)
        if position is None:
            return None
        at, id_ = _PLACE.unpack(position)
        return instant_of(at), id_

    def behind(self, place: tuple[datetime, bytes] | None) -> str | None:
        """The cursor for the page after this place; None where there is none."""
        if place is None:
            return None
        at, id_ = place
        return self.cursor(_PLACE.pack(us_of(at), id_))

    def cursor(self, position: bytes) -> str:
        """The cursor for the page after this position."""
        assert len(position) <= _POSITION_MAX, position
        return base64.urlsafe_b64encode(self._bound + position).rstrip(b"=").decode()


def _bad_cursor() -> Problem:
    detail = "the cursor is none of this query: take next_cursor as it is, and keep the filters"
    return Problem("bad-cursor", detail, members={"parameter": "cursor"})


def _decoded(text: str) -> str:
    """Undoes the percent-encoding, as forms are sent: + is a space."""
    if _BROKEN_ESCAPE.search(text):
        raise Problem("bad-request", "the query has a % that begins no escape; write %25")
    try:
        decoded = unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeError:
        raise Problem("bad-request", "the query isn't UTF-8") from None
    if "\0" in decoded:
        raise Problem("bad-request", "the URL has a NUL in it")
    return decoded


def one_of(values: Sequence[str]) -> list[str] | None:
    """The values of a filter, each once; None when it isn't used."""
    return sorted(set(values)) or None


def us_of(at: datetime) -> int:
    """Microseconds since 1970, for positions in cursors."""
    return (at - _EPOCH) // _US


def instant_of(us: int) -> datetime:
    """The instant again; a forged cursor may name none that can be told."""
    return _EPOCH + _US * min(max(us, 0), _US_MAX)
