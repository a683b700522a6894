"""The fields of a job as it is submitted: the model that validates them, and documents them.

One validation in pydantic's core and no model objects: it runs 25,000 times a second in a bulk
load. The context of a validation is now in ms, or None where instants may lie anywhere.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Required

from pydantic import (
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from penstock.api.bodies import DEPTH_MAX
from penstock.api.fields import JobRef, Name, Printable, Tag, instant, says, whole
from penstock.api.notices import WISHES_MAX, Notify
from penstock.domain.graph import LOOSE_PARENTS_MAX, NAME_CHARS_MAX, PARENTS_MAX

AHEAD_MAX_S = 1827 * 86_400  # five years, two of them leap years
_DAY_S = 86_400
NAMES_MAX = 64  # in one object; more than there are fields, now and later

_CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _ahead(value: object, info: ValidationInfo[int | None]) -> datetime:
    """An instant that isn't too far ahead."""
    at = instant(value)
    if info.context is None:
        return at
    if at > datetime.fromtimestamp(info.context / 1000, UTC) + timedelta(seconds=AHEAD_MAX_S):
        raise PydanticCustomError("instant", "must be at most five years ahead")
    return at


def _few_names(value: object) -> object:
    """Counts before pydantic describes each of them."""
    if isinstance(value, dict) and len(value) > NAMES_MAX:
        raise PydanticCustomError("crowded", f"must have at most {NAMES_MAX} fields")
    return value


Instant = Annotated[
    datetime,
    PlainValidator(_ahead),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


@with_config(_CLOSED)
class BackoffBody(TypedDict, total=False):
    """How long to wait after a failure: by default 2 s, doubled each time, up to 1 h."""

    kind: Annotated[
        Literal["exponential", "linear", "fixed"],
        says("`linear`: base_s times the failures; `exponential`: times factor each time."),
    ]
    base_s: Annotated[float, Field(ge=0, le=_DAY_S), says("The first wait in seconds.")]
    factor: Annotated[float, Field(ge=1, le=100), says("What `exponential` multiplies by.")]
    max_s: Annotated[float, Field(ge=0, le=30 * _DAY_S), says("The longest wait in seconds.")]
    jitter: Annotated[
        Literal["full", "equal", "none"],
        says("How much of the wait d is left to chance: 0 to d, d/2 to d, or nothing."),
    ]


# Of these pairs one says what the other says in another way.
EITHER = (("run_at", "delay_s"), ("expires_at", "ttl_s"))


def _consistent(schema: dict[str, Any]) -> None:
    """Tells JSON Schema what `_contradictions` finds."""
    schema["not"] = {"anyOf": [{"required": list(pair)} for pair in EITHER]}
    schema["dependentRequired"] = {"on_conflict": ["unique_key"], "run_if": ["depends_on"]}
    parents = {"properties": {"depends_on": {"minItems": 1}}}
    schema["dependentSchemas"] = {"run_if": parents}


def _few(count_max: int) -> BeforeValidator:
    """Counts before pydantic looks at each of them."""

    def check(value: object) -> object:
        if isinstance(value, list) and len(value) > count_max:
            raise PydanticCustomError("crowded", f"must have at most {count_max} items")
        return value

    return BeforeValidator(check)


_OPEN = ConfigDict(**_CLOSED, json_schema_extra=_consistent)
JobName = Annotated[Printable, Field(max_length=NAME_CHARS_MAX)]
RunIfName = Literal[
    "all_succeeded",
    "all_failed",
    "all_finished",
    "any_succeeded",
    "any_failed",
    "none_failed",
    "none_skipped",
    "all_skipped",
]
_UNIQUE = {"uniqueItems": True}


@with_config(_OPEN)
class _Fields(TypedDict, total=False):
    """What a job has wherever it is submitted."""

    kind: Required[Annotated[Name, says("The handler that is to run it, known here or not.")]]
    payload: Annotated[
        Any,
        says(
            f"Any JSON, at most {DEPTH_MAX} levels deep, without NUL in its strings and with "
            "integers within ±2^53. A kind that is known here checks it at once."
        ),
    ]
    queue: Annotated[Name, says("The line to stand in; `default` by default.")]
    priority: Annotated[
        int,
        Field(ge=0, le=9),
        BeforeValidator(whole),
        says("9 runs first; 5 by default. Waiting outweighs priority in the end."),
    ]
    run_at: Annotated[
        Instant, says("Not before; at most five years ahead. The past is now. Excludes `delay_s`.")
    ]
    delay_s: Annotated[
        float, Field(ge=0, le=AHEAD_MAX_S), says("Not before so many seconds from now.")
    ]
    max_attempts: Annotated[
        int,
        Field(ge=1, le=100),
        BeforeValidator(whole),
        says("How often it may fail before it is dead; 5 by default."),
    ]
    backoff: Annotated[BackoffBody, BeforeValidator(_few_names)]
    timeout_s: Annotated[float, Field(ge=0.1, le=_DAY_S), says("For one attempt; 300 by default.")]
    on_lost: Annotated[
        Literal["retry", "dead"],
        says(
            "When a worker is lost with it: run again (the default), or give up, for work that "
            "must never run twice."
        ),
    ]
    expires_at: Annotated[
        Instant,
        says(
            "Cancelled, reason `expired`, if it hasn't started by then; later than `run_at`, at "
            "most five years ahead. Never by default. Excludes `ttl_s`."
        ),
    ]
    ttl_s: Annotated[
        float,
        Field(gt=0, le=AHEAD_MAX_S),
        says("`expires_at` as seconds from now; more than `delay_s`."),
    ]
    unique_key: Annotated[
        Printable,
        Field(max_length=255),
        says("At most one job of the queue that isn't over has this key."),
    ]
    tags: Annotated[list[Tag], Field(max_length=16), says("Labels to find it by.")]
    notify: Annotated[Notify, _few(WISHES_MAX)]

    run_if: Annotated[
        RunIfName,
        says(
            "What must have become of the jobs that it depends on for it to run; `all_succeeded` "
            "by default. Where that can't hold any more, it is `skipped`. `failed` means `dead`. "
            "Needs `depends_on`."
        ),
    ]


@with_config(_OPEN)
class JobBody(_Fields, total=False):
    """A job as it is submitted. What is left out has the server's default."""

    on_conflict: Annotated[
        Literal["reject", "return"],
        says(
            "When another job has the `unique_key`: `reject` with 409 (the default), or `return` "
            "that job with 200. Needs `unique_key`."
        ),
    ]
    depends_on: Annotated[
        list[JobRef],
        FailFast(),
        Field(max_length=LOOSE_PARENTS_MAX, json_schema_extra=_UNIQUE),
        _few(LOOSE_PARENTS_MAX),
        says(
            "Ids of existing jobs that it waits for, each once. In its payload "
            '`{"$result": id, "pointer": "/a/0"}` stands for the result of one, or a part of it.'
        ),
    ]


@with_config(_OPEN)
class MemberBody(_Fields, total=False):
    """A job of a workflow as it is submitted. What is left out has the server's default."""

    name: Required[Annotated[JobName, says("Its own in the workflow.")]]
    on_conflict: Annotated[
        Literal["reject"], says("`return` is none for workflows. Needs `unique_key`.")
    ]
    depends_on: Annotated[
        list[JobName],
        FailFast(),
        Field(max_length=PARENTS_MAX, json_schema_extra=_UNIQUE),
        _few(PARENTS_MAX),
        says(
            "Names of jobs of the workflow that it waits for, each once. In its payload "
            '`{"$result": name, "pointer": "/a/0"}` stands for the result of one, or a part of it.'
        ),
    ]


JOB_BODY: TypeAdapter[JobBody] = TypeAdapter(JobBody)
MEMBER_BODY: TypeAdapter[MemberBody] = TypeAdapter(MemberBody)


@dataclass(frozen=True, slots=True)
class Form:
    """What a job is held to: as it is submitted by itself, or as one of a workflow."""

    adapter: TypeAdapter[Any]
    fields: frozenset[str]


JOB = Form(JOB_BODY, frozenset(JobBody.__annotations__))
MEMBER = Form(MEMBER_BODY, frozenset(MemberBody.__annotations__))
