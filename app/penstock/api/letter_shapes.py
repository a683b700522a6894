"""What answers about dead letters and deliveries look like; see `shapes`."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from penstock.api.fields import Name
from penstock.api.shapes import Count, Error, Id, NextCursor, Time, says
from penstock.domain.letter import Message, Resolution

_JOB = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"
_FAILURE = {"type": "TimeoutError", "message": "no answer", "details": None}
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


class Replays(TypedDict):
    """What came of a replay by filter."""

    dry_run: Annotated[bool, says("Whether it only counted.", False)]
    matched: Annotated[Count, says("Dead letters that the filter wants, 10,000 at most.", 112)]
    replayed: Annotated[
        Count,
        says("Jobs that run again. Others can't: say, their `unique_key` is held by now.", 112),
    ]
    more: Annotated[bool, says("Whether there may be more: then ask again.", False)]
    sample: Annotated[list[Letter], says("Of a dry run: the newest of them.", [])]
