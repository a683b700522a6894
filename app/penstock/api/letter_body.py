"""What is sent about dead letters: a replay of one, and of all that a filter wants."""

from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from penstock.api.fields import ErrorType, Fingerprint, Name, says
from penstock.api.queries import REPEATS_MAX

_CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
RATE_MAX = 10_000.0


@with_config(_CLOSED)
class ReplayBody(TypedDict, total=False):
    """What a job is to run with in its new life; as before, where it is left out."""

    payload: Annotated[Any, says("Any JSON, checked as that of a new job of the kind.")]
    queue: Annotated[Name, says("The line to stand in from now on.")]


@with_config(_CLOSED)
class FilterBody(TypedDict, total=False):
    """Open dead letters: any of the values of one name, and all of the names; `{}` is all."""

    queue: Annotated[list[Name], Field(max_length=REPEATS_MAX), says("Of one of these queues.")]
    kind: Annotated[list[Name], Field(max_length=REPEATS_MAX), says("Of one of these kinds.")]
    error_type: Annotated[
        list[ErrorType], Field(max_length=REPEATS_MAX), says("With one of these types of error.")
    ]
    fingerprint: Annotated[
        list[Fingerprint], Field(max_length=REPEATS_MAX), says("Of one of these groups.")
    ]


@with_config(_CLOSED)
class ReplaysBody(TypedDict, total=False):
    """Which dead letters to replay, and how fast."""

    filter: Required[FilterBody]
    rate_per_s: Annotated[
        float,
        Field(ge=0.01, le=RATE_MAX),
        says("So many of the jobs are due each second; without it all of them at once."),
    ]
    dry_run: Annotated[bool, says("Only count them, and show the newest ones.")]


REPLAY_BODY: TypeAdapter[ReplayBody] = TypeAdapter(ReplayBody)
REPLAYS_BODY: TypeAdapter[ReplaysBody] = TypeAdapter(ReplaysBody)
