"""What answers about dead letters and deliveries look like; see `shapes`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from penstock.api.fields import Name, says
from penstock.api.shapes import Count, Error, Id, NextCursor, Time
from penstock.domain.delivery import Outcome
from penstock.domain.effect import Channel
from penstock.domain.letter import Message, Resolution

_JOB = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"
_FAILURE = {"type": "TimeoutError", "message": "no answer", "details": None}
_DELIVERY = "5f0c3d0a-1f7e-4c53-9a3e-0f1d5d3f7c11"
_HOST = "https://example.com/…"
_MARK = "9f86d081884c7d65"
_DIED = "2026-11-18T11:06:41.207Z"

Mark = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class Letter(TypedDict):
    """A death of a job."""

    job_id: Annotated[Id, says("The job that died.", _JOB)]
    attempt: Annotated[Count, says("Number of the attempt that it died of.", 5)]
    queue: Annotated[Name, says("The line that it stood in.", "mail")]
    kind: Annotated[Name, says("Its handler.", "send-mail")]
    error: Annotated[Error | None, says("Why it died; null once its attempt is deleted.", _FAILURE)]
    error_type: Annotated[str, says("The error's type.", "TimeoutError")]
    fingerprint: Annotated[
        Mark, says("The same for failures alike in kind, type and place.", _MARK)
    ]
    reason: Annotated[str | None, says("What ended it, besides failures.", None)]
    died_at: Annotated[Time, says("When it died.", _DIED)]
    resolved_at: Annotated[Time | None, says("When that was dealt with.", None)]
    resolution: Annotated[
        Resolution | None,
        says(
            "How: `replayed` or `retried` (it ran again), `discarded`, `pruned` (nothing was done, "
            "and its job was deleted for its age).",
            None,
        ),
    ]
    resolved_by: Annotated[str | None, says("The `sub` of who did.", None)]
    delivery: Annotated[
        Message,
        says("Its message to the broker; `none`: there was no broker when it died.", "delivered"),
    ]


class Letters(TypedDict):
    """A page of dead letters, the newest death first."""

    items: list[Letter]
    next_cursor: NextCursor


class GroupSample(TypedDict):
    """The newest death of a group."""

    job_id: Annotated[Id, says("The job that died.", _JOB)]
    attempt: Annotated[Count, says("Of which attempt.", 5)]
    queue: Annotated[Name, says("In which line.", "mail")]
    error: Annotated[Error | None, says("Why.", _FAILURE)]


class Group(TypedDict):
    """Open dead letters that are alike."""

    fingerprint: Annotated[Mark, says("What they share.", _MARK)]
    kind: Annotated[Name, says("Their handler.", "send-mail")]
    error_type: Annotated[str, says("Their error's type.", "TimeoutError")]
    count: Annotated[Count, says("How many there are among the newest 20,000 letters.", 112)]
    first_at: Annotated[Time, says("When the first of them died.", "2026-11-18T10:59:02.000Z")]
    last_at: Annotated[Time, says("When the last of them died.", _DIED)]
    sample: GroupSample


class Groups(TypedDict):
    """A page of groups, the newest death first."""

    items: list[Group]
    next_cursor: NextCursor
    truncated: Annotated[
        bool, says("Whether there are more than 20,000 letters: older ones aren't counted.", False)
    ]


class ReplayFailure(TypedDict):
    """A job that can't run again as it stands."""

    job_id: Annotated[Id, says("The job.", _JOB)]
    type: Annotated[str, says("The problem that a replay of it alone is.", "/problems/wrong-state")]
    detail: Annotated[str, says("What is in its way.", "the job is cancelled; …")]


class Replays(TypedDict):
    """What came of a replay by filter."""

    dry_run: Annotated[bool, says("Whether it only counted.", False)]
    matched: Annotated[Count, says("Dead letters that the filter wants, 10,000 at most.", 112)]
    replayed: Annotated[
        Count,
        says("Jobs that run again. Others can't: say, their `unique_key` is held by now.", 112),
    ]
    failed: Annotated[Count, says("Jobs that can't run again; their letters stay open.", 0)]
    failures: Annotated[list[ReplayFailure], says("The first 20 of those, and why.", [])]
    more: Annotated[bool, says("Whether there may be more: then ask again.", False)]
    sample: Annotated[list[Letter], says("Of a dry run: the newest of them.", [])]


class _Endpoint(TypedDict):
    id: Annotated[Mark, says("Names it in `POST /v1/endpoints/enable`.", _MARK)]
    endpoint: Annotated[
        str, says("A topic, an address, or where a URL leads to.", "https://example.com/…")
    ]
    channel: Annotated[Channel, says("How it is told.", "webhook")]


class Enabled(_Endpoint):
    """An endpoint that was taken back."""


class Endpoint(_Endpoint):
    """An endpoint that fails, or was given up."""

    failing_since: Annotated[Time, says("Since when nothing arrived there.", _DIED)]
    failures: Annotated[Count, says("How many tries failed since then.", 7)]
    disabled_at: Annotated[
        Time | None, says("When it was given up: nothing is sent there any more.", None)
    ]
    error: Annotated[str, says("Why the last try failed.", "503 Service Unavailable")]


class Endpoints(TypedDict):
    """A page of endpoints."""

    items: list[Endpoint]
    next_cursor: NextCursor


class Delivery(TypedDict):
    """A message about an end: pending or over."""

    id: Annotated[Id, says("Its own, mostly a UUIDv4; not what its receiver sees.", _DELIVERY)]
    channel: Annotated[Channel, says("How it goes out.", "webhook")]
    endpoint: Annotated[
        str,
        says("A topic, an address, or where a URL leads to: the rest of it may be secret.", _HOST),
    ]
    endpoint_id: Annotated[Mark, says("Names the endpoint.", _MARK)]
    message_id: Annotated[
        str,
        says("What its receiver sees, the same at each try: `webhook-id`, `ce_id`.", f"{_JOB}:5"),
    ]
    event: Annotated[str, says("What it tells of.", "penstock.job.dead.v1")]
    job_id: Annotated[Id | None, says("The job that it tells of.", _JOB)]
    workflow_id: Annotated[Id | None, says("Or the workflow.", None)]
    attempt: Annotated[Count, says("The job's last attempt then.", 5)]
    state: Annotated[str, says("What it ended as.", "dead")]
    rule: Annotated[
        str | None, says("The rule of the configuration that asked for it; null: `notify`.", None)
    ]
    created_at: Annotated[Time, says("When that ended.", _DIED)]
    tries: Annotated[
        Count, says("How often it was tried; without tries in whose midst a replica died.", 1)
    ]
    outcome: Annotated[
        Outcome,
        says(
            "`pending` (to be tried), `delivered`, `failed` (given up), `dropped` (not tried: "
            "there was nothing to tell any more, its rule held it back, or its endpoint was given "
            "up; `error` says which).",
            "delivered",
        ),
    ]
    error: Annotated[str | None, says("Why the last try failed.", None)]
    next_try_at: Annotated[Time | None, says("When a pending one is tried (again).", None)]
    waits_for: Annotated[
        Literal["quiet", "group", "retry"] | None,
        says(
            "Why a pending one waits until then: `quiet` (quiet hours of its rule), `group` "
            "(others of its group), `retry` (it was tried).",
            None,
        ),
    ]
    part_of: Annotated[
        Id | None, says("The delivery whose message tells of it too; null: its own.", None)
    ]
    finished_at: Annotated[Time | None, says("When it was over.", "2026-11-18T11:06:41.300Z")]


class Deliveries(TypedDict):
    """A page of deliveries, the newest ends first."""

    items: list[Delivery]
    next_cursor: NextCursor
