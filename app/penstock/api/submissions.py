"""What may be submitted: one JSON object becomes one `NewJob`, or a list of faults.

In: a decoded object. Out: `NewJob`, its payload encoded once. Always holds: every bad field is
named at once; a field that only the server sets, that isn't built yet or that nobody knows is
refused, never ignored; `null` is a value like any other and stands for no default.

This runs 25,000 times a second in a bulk load: one validation in pydantic's core, no model
objects, and nothing but `Intake.take` per job.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal, Required

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from penstock.api.bodies import payload_text
from penstock.api.door import Door
from penstock.api.problems import ERRORS_MAX, Fault, Problem, named
from penstock.domain.ids import JobId
from penstock.domain.job import NAME_PATTERN, NewJob, OnLost
from penstock.domain.pointer import step
from penstock.domain.retry import DEFAULT_BACKOFF, Backoff, Curve, Jitter

AHEAD_MAX_S = 1827 * 86_400  # five years, two of them leap years
_DAY_S = 86_400
_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_NAMES_MAX = 64  # in one object; more than there are fields, now and later

_SET_BY_SERVER = {
    *("id", "state", "result", "error", "attempt", "failures", "progress", "worker"),
    *("created_at", "created_by", "started_at", "finished_at", "workflow_id", "cancel_reason"),
}
_NOT_BUILT = {
    *("expires_at", "ttl_s", "unique_key", "on_conflict", "concurrency_key"),
    *("depends_on", "run_if", "notify", "name"),
}
NOT_YET = "is not supported yet"

_CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def _whole(value: object) -> object:
    """JSON has one kind of number: 4.0 is as good as 4 (libraries.md, trap 4)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _run_at(value: object, info: ValidationInfo[int]) -> datetime | None:
    """An instant after now, or None for one that has passed. The context is now, in ms."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise PydanticCustomError("instant", "must be an RFC 3339 time with its zone")
    try:
        at = _in_utc(datetime.fromisoformat(value.upper()))
    except ValueError:
        raise PydanticCustomError("instant", "is not a time that exists") from None
    now = datetime.fromtimestamp(info.context / 1000, UTC)
    if at > now + timedelta(seconds=AHEAD_MAX_S):
        raise PydanticCustomError("instant", "must be at most five years ahead")
    return at if at > now else None


def _in_utc(at: datetime) -> datetime:
    """Or the first or last instant that can be told, for what its zone leads beyond it."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return _FIRST if at.year == 1 else _LAST


def _few_names(value: object) -> object:
    """Counts before pydantic describes each of them."""
    if isinstance(value, dict) and len(value) > _NAMES_MAX:
        raise PydanticCustomError("crowded", f"must have at most {_NAMES_MAX} fields")
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Instant = Annotated[
    datetime | None,
    PlainValidator(_run_at),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


@with_config(_CLOSED)
class BackoffBody(TypedDict, total=False):
    """How long to wait after a failure."""

    kind: Literal["exponential", "linear", "fixed"]
    base_s: Annotated[float, Field(ge=0, le=_DAY_S)]
    factor: Annotated[float, Field(ge=1, le=100)]
    max_s: Annotated[float, Field(ge=0, le=30 * _DAY_S)]
    jitter: Literal["full", "equal", "none"]


@with_config(_CLOSED)
class JobBody(TypedDict, total=False):
    """A job as it is submitted."""

    kind: Required[Name]
    payload: Any
    queue: Name
    priority: Annotated[int, Field(ge=0, le=9), BeforeValidator(_whole)]
    run_at: Instant
    delay_s: Annotated[float, Field(ge=0, le=AHEAD_MAX_S)]
    max_attempts: Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)]
    backoff: Annotated[BackoffBody, BeforeValidator(_few_names)]
    timeout_s: Annotated[float, Field(ge=0.1, le=_DAY_S)]
    on_lost: Literal["retry", "dead"]
    tags: Annotated[list[Tag], Field(max_length=16)]


JOB_BODY: TypeAdapter[JobBody] = TypeAdapter(JobBody)


def refusal(faults: Sequence[Fault]) -> Problem:
    """The 422 for a submission with these faults."""
    unbuilt = all(fault.detail == NOT_YET for fault in faults)
    return named("not-supported-yet" if unbuilt else "validation-failed", faults)


class Intake:
    """Takes in the jobs of one request. `faults` gathers what is wrong, by pointer."""

    def __init__(
        self, door: Door, *, created_by: str, traceparent: str | None, suspect: bool
    ) -> None:
        self._door = door
        self._created_by = created_by
        self._traceparent = traceparent
        self.suspect = suspect
        self._seen: tuple[str | None, list[Fault]] | None = None
        self._now_ms = door.now_ms()
        self.faults: list[Fault] = []

    @property
    def is_full(self) -> bool:
        """More faults than one answer names: the rest need not be looked for."""
        return len(self.faults) > ERRORS_MAX

    def take(self, value: Any, at: str = "") -> NewJob | None:
        """The job that `value` asks for, or None after its faults were noted below `at`."""
        if isinstance(value, dict) and len(value) > _NAMES_MAX:
            self._refuse_names(value, at)
            return None
        try:
            body = JOB_BODY.validator.validate_python(value, context=self._now_ms)
        except ValidationError as error:
            self._blame(error, at)
            if isinstance(value, dict):
                self._payload(value, at)
                self._one_time(value, at)
            return None
        payload = self._payload(body, at)
        if not self._one_time(body, at) or payload is None:
            return None
        return self._job(body, payload)

    def look_ahead(self, value: Any) -> None:
        """Checks the payload of the value that is taken next: the part that may take long."""
        if isinstance(value, dict):
            self._seen = self._look(value)

    def _job(self, body: JobBody, payload: str) -> NewJob:
        door, kind = self._door, body["kind"]
        defaults = door.kinds.get(kind, door.defaults)
        return NewJob(
            id=JobId(door.minter.mint()),
            queue=body.get("queue", defaults.queue),
            kind=kind,
            payload=payload,
            priority=body.get("priority", defaults.priority),
            run_at=body.get("run_at"),
            delay_s=body.get("delay_s"),
            max_attempts=body.get("max_attempts", defaults.max_attempts),
            backoff=_backoff(body["backoff"]) if "backoff" in body else DEFAULT_BACKOFF,
            timeout_s=body.get("timeout_s", defaults.timeout_s),
            on_lost=OnLost(body["on_lost"]) if "on_lost" in body else OnLost.RETRY,
            tags=tuple(body["tags"]) if "tags" in body else (),
            traceparent=self._traceparent,
            created_by=self._created_by,
        )

    def _payload(self, body: Mapping[str, Any], at: str) -> str | None:
        text, faults = self._seen or self._look(body)
        self._seen = None
        self.faults.extend(Fault(f"{at}/payload{f.pointer}", f.detail) for f in faults)
        return text

    def _look(self, body: Mapping[str, Any]) -> tuple[str | None, list[Fault]]:
        """The payload's text, or what is wrong with it. Touches nothing: it may be in a thread."""
        payload, kind = body.get("payload"), body.get("kind")
        text = payload_text(payload, suspect=self.suspect)
        if not isinstance(text, str):
            return None, text
        wrong = self._door.payload_errors(kind, payload) if isinstance(kind, str) else ()
        if not wrong:
            return text, []
        lacks = "payload" not in body
        found = [Fault(at, said if at or not lacks else "is required") for at, said in wrong]
        return None, found

    def _refuse_names(self, value: Mapping[str, Any], at: str) -> None:
        """For more names than a job has fields: pydantic would describe every one of them."""
        self._seen = None
        strange = (name for name in value if name not in JobBody.__annotations__)
        for name in islice(strange, ERRORS_MAX + 1):
            self.faults.append(Fault(at + step(name), _unknown((name,))))

    def _one_time(self, body: Mapping[str, Any], at: str) -> bool:
        if "delay_s" in body and "run_at" in body:
            self.faults.append(Fault(f"{at}/delay_s", "give run_at or delay_s, not both"))
            return False
        return True

    def _blame(self, error: ValidationError, at: str) -> None:
        found = error.errors(include_url=False, include_input=False)
        for one in found:
            pointer = at + "".join(map(step, one["loc"]))
            self.faults.append(Fault(pointer, _detail(one)))


def _backoff(body: BackoffBody) -> Backoff:
    default = DEFAULT_BACKOFF
    return Backoff(
        kind=Curve(body.get("kind", default.kind)),
        base_s=body.get("base_s", default.base_s),
        factor=body.get("factor", default.factor),
        max_s=body.get("max_s", default.max_s),
        jitter=Jitter(body.get("jitter", default.jitter)),
    )


# pydantic's names of what can be wrong, in the words of the house.
_DETAILS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} items",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
}


def _detail(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind == "string_pattern_mismatch":
        form = context["pattern"]
        return f"must match {form}" if form == NAME_PATTERN else "must have no control characters"
    values = {name: _whole(value) for name, value in context.items()}
    return _DETAILS[kind].format(**values) if kind in _DETAILS else str(error["msg"])


def _unknown(where: tuple[str | int, ...]) -> str:
    name = where[-1] if len(where) == 1 else None
    if name in _SET_BY_SERVER:
        return "is set by the server"
    if name == "traceparent":
        return "is taken from the header of that name"
    return NOT_YET if name in _NOT_BUILT else "is not a known field"
