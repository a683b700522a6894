"""What the document says of the calls of dead letters and deliveries: see `openapi_calls`."""

from collections.abc import Mapping
from typing import Any

from penstock.api import letter_shapes as shapes
from penstock.api import letters
from penstock.api.openapi_parts import Call, Gives
from penstock.api.routes import Handler
from penstock.api.shapes import Job

_ALIVE = {
    "state": "ready",
    "attempt": 5,
    "started_at": None,
    "finished_at": None,
    "worker": None,
    "result": None,
}
_SHORT = "A page may be short and still have a `next_cursor`: go on until that is null."
_BY_FILTER: Mapping[str, Any] = {
    "look": {"filter": {"kind": ["send-mail"], "error_type": ["TimeoutError"]}, "dry_run": True},
    "slowly": {"filter": {"queue": ["mail"]}, "rate_per_s": 10},
    "everything": {"filter": {}},
}

CALLS_OF_LETTERS: Mapping[Handler, Call] = {
    letters.list_all: Call(
        "listDeadLetters",
        "dead letters",
        "List dead letters",
        "Deaths of jobs in queues that the token opens, the newest first: those that nobody dealt "
        f"with, or what `which` says. Filters narrow, as those of jobs. {_SHORT}",
        {200: Gives("A page of dead letters.", shapes.Letters)},
    ),
    letters.groups: Call(
        "listDeadLetterGroups",
        "dead letters",
        "Group dead letters",
        "Open dead letters with the same fingerprint (kind, type of error, place), counted among "
        "the newest 20,000 (`truncated`: there are more), or among all of one job or workflow; the "
        "group with the newest death first.",
        {200: Gives("A page of groups.", shapes.Groups)},
    ),
    letters.replay: Call(
        "replayDeadLetter",
        "dead letters",
        "Replay a dead letter",
        "Gives the job a new life with a fresh budget, as a retry does, with another `payload` or "
        "`queue` if asked. In a workflow it is a retry from that job. The letter is kept as "
        "`replayed`.",
        {200: Gives("The job.", Job, example=_ALIVE)},
        problems=("wrong-state", "duplicate-job", "forbidden-queue", "too-many-queues"),
        samples={"as it was": {}, "mended": {"payload": {"message": "once more"}}},
    ),
    letters.replay_all: Call(
        "replayDeadLetters",
        "dead letters",
        "Replay many dead letters",
        "Replays the oldest first, 10,000 at most and for some seconds; ask again while there is "
        "`more`. With `rate_per_s` they are due one after the other. A dry run only counts. The "
        "first 20 that can't run again are named, with the reason.",
        {200: Gives("How many.", shapes.Replays)},
        samples=_BY_FILTER,
    ),
    letters.discard: Call(
        "discardDeadLetter",
        "dead letters",
        "Discard a dead letter",
        "Takes it off the list of what is open. The job stays dead, and can still be retried.",
        {
            200: Gives(
                "The letter.",
                shapes.Letter,
                example={
                    "resolved_at": "2026-11-18T12:00:00.000Z",
                    "resolution": "discarded",
                    "resolved_by": "ada",
                },
            )
        },
        problems=("wrong-state",),
    ),
}
