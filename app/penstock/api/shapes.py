"""What answers look like: the shapes of the JSON that `views` makes, for the document.

In: nothing; out: types that `openapi` turns into JSON Schema. Always holds: each field says what
it means and gives an example of itself, and the examples of one shape tell one story (a test
puts them together and holds them against the schema). In the tests every answer that any call
gets is held against these shapes, closed to fields that they don't name.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from penstock.api.fields import Name, says
from penstock.domain.attempt import Outcome
from penstock.domain.job import OnLost, State
from penstock.domain.retry import Curve, Jitter
from penstock.domain.workflow import WorkflowState

_ID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
_WORKER = "01a1e860-7d00-7cc3-98c4-dc0c0c07398f"

Id = Annotated[str, Field(pattern=_ID, json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(pattern=_TIME, json_schema_extra={"format": "date-time"})]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
NextCursor = Annotated[
    str | None,
    Field(description="Where the next page begins; null: this is the last.", examples=[None]),
]


class Backoff(TypedDict):
    """How long a job waits after a failure."""

    kind: Annotated[Curve, says("How the wait grows with the failures.", "exponential")]
    base_s: Annotated[Seconds, says("The first wait in seconds.", 2.0)]
    factor: Annotated[float, says("What `exponential` multiplies by.", 2.0)]
    max_s: Annotated[Seconds, says("The longest wait in seconds.", 3600.0)]
    jitter: Annotated[Jitter, says("How much of the wait is left to chance.", "full")]


class Error(TypedDict):
    """Why an attempt failed."""

    type: Annotated[str, says("A short name to branch on.", "TimeoutError")]
    message: Annotated[str, says("One sentence for people.", "the mail server didn't answer")]
    details: Annotated[Any, says("Any JSON that the handler added.", {"host": "mx1"})]


class Progress(TypedDict):
    """How far a running job has come, as its handler says."""

    percent: Annotated[float, Field(ge=0, le=100), says("0 to 100.", 40.0)]
    message: Annotated[str | None, says("What it is doing.", "2 of 5 pages")]


_HIDDEN = "Where the URL leads to: the rest of it may be secret."


class Notice(TypedDict):
    """Who is told of which ends."""

    on: Annotated[list[str], says("The ends that are told of.", ["dead"])]
    webhook: NotRequired[Annotated[str, says(_HIDDEN, "https://example.com/…")]]
    email: NotRequired[Annotated[str, says("Or the address.", "ops@example.com")]]


class _JobBasics(TypedDict):
    id: Annotated[Id, says("UUIDv7, made by the server.", "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa")]
    kind: Annotated[Name, says("The handler that runs it.", "echo")]
    queue: Annotated[Name, says("The line that it stands in.", "mail")]
    state: Annotated[State, says("Where it stands; see *States of a job*.", "succeeded")]
    priority: Annotated[int, Field(ge=0, le=9), says("9 runs first.", 5)]
    error: Annotated[
        Error | None, says("Of the last attempt that failed, until one succeeds.", None)
    ]
    attempt: Annotated[Count, says("Number of the last attempt; 0 before the first.", 1)]
    failures: Annotated[Count, says("How much of `max_attempts` is spent in this life.", 0)]
    crashes: Annotated[Count, says("How many child processes it ended in this life.", 0)]
    max_attempts: Annotated[int, Field(ge=1, le=100), says("How often it may fail.", 5)]
    on_lost: Annotated[OnLost, says("What happens when its worker is lost with it.", "retry")]
    backoff: Backoff
    timeout_s: Annotated[Seconds, says("For one attempt.", 300.0)]
    run_at: Annotated[
        Time, says("When it is or was due: first run or retry.", "2026-11-18T11:06:40.000Z")
    ]
    expires_at: Annotated[Time | None, says("Cancelled if it hasn't started by then.", None)]
    created_at: Annotated[
        Time,
        says(
            "When it was submitted; of one that a job submitted, when that job was: it has the "
            "same id, and so the same place in lists, however often that job runs.",
            "2026-11-18T11:06:40.000Z",
        ),
    ]
    started_at: Annotated[
        Time | None, says("When the last attempt began.", "2026-11-18T11:06:40.007Z")
    ]
    finished_at: Annotated[
        Time | None, says("When it reached its end.", "2026-11-18T11:06:40.019Z")
    ]
    unique_key: Annotated[str | None, says("No other live job of the queue has it.", None)]
    concurrency_key: Annotated[str | None, says("Bounds how many run at once.", None)]
    tags: Annotated[list[str], says("Labels to find it by.", ["welcome"])]
    workflow_id: Annotated[Id | None, says("The workflow that it belongs to.", None)]
    name: Annotated[str | None, says("Its name in the workflow.", None)]
    depends_on: Annotated[
        list[str], says("The jobs that it waits for: names in its workflow, else ids.", [])
    ]
    run_if: Annotated[str | None, says("What must have become of those.", None)]
    notify: Annotated[list[Notice], says("Who is told when it is over.", [])]
    progress: Annotated[Progress | None, says("How far it has come.", None)]
    cancel_reason: Annotated[
        Literal["requested", "expired", "workflow-stopped"] | None,
        says("Why it was cancelled, if it was.", None),
    ]
    worker: Annotated[
        Id | None,
        says("The worker of the last attempt; of a job of kind `workflow` that one.", _WORKER),
    ]
    traceparent: Annotated[
        str | None,
        says(
            "The trace that it was submitted in.",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ]
    created_by: Annotated[str, says("The `sub` of who submitted it.", "signup-service")]


class Job(_JobBasics):
    """A job as it stands."""

    payload: Annotated[Any, says("What was submitted.", {"to": "ada@example.com"})]
    result: Annotated[Any, says("What the handler gave back.", {"to": "ada@example.com"})]


class ListedJob(_JobBasics):
    """A job in a list: without payload and result, if they weren't asked for."""

    payload: NotRequired[Annotated[Any, says("With `include=payload`.", {"to": "ada"})]]
    result: NotRequired[Annotated[Any, says("With `include=result`.", {"to": "ada"})]]


class Brief(TypedDict):
    """One job of a batch."""

    id: Annotated[Id, says("UUIDv7, made by the server.", "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa")]
    state: Annotated[State, says("Where it stands.", "ready")]


class Batch(TypedDict):
    """The jobs of a batch, in the order in which they were sent."""

    items: list[Brief]


class Attempt(TypedDict):
    """One try of a job."""

    attempt: Annotated[int, Field(ge=1), says("Counted from 1, never used again.", 1)]
    worker: Annotated[Id, says("Who ran it.", _WORKER)]
    started_at: Annotated[Time, says("When it began.", "2026-11-18T11:06:40.007Z")]
    finished_at: Annotated[Time | None, says("When it ended.", "2026-11-18T11:06:41.207Z")]
    outcome: Annotated[Outcome | None, says("How it ended; null while it is under way.", "failed")]
    error: Annotated[
        Error | None,
        says(
            "Why it failed.",
            {"type": "TimeoutError", "message": "no answer", "details": None},
        ),
    ]
    next_run_at: Annotated[
        Time | None, says("When the job was to run again.", "2026-11-18T11:06:42.551Z")
    ]


class LogLine(TypedDict):
    """One line that a handler logged."""

    time: Annotated[Time, says("When it was logged.", "2026-11-18T11:06:40.011Z")]
    attempt: Annotated[int, Field(ge=1), says("In which attempt.", 1)]
    level: Annotated[str, says("How serious it is.", "info")]
    message: Annotated[str, says("The text, with its fields.", "sent to=ada@example.com")]


class Counts(TypedDict):
    """Jobs by state."""

    blocked: Annotated[Count, says("Waiting for parents.", 0)]
    scheduled: Annotated[Count, says("Waiting for their time.", 2)]
    ready: Annotated[Count, says("Waiting for a free slot.", 17)]
    running: Annotated[Count, says("With a worker.", 8)]
    succeeded: Annotated[Count, says("Done.", 1204)]
    dead: Annotated[Count, says("Given up.", 3)]
    cancelled: Annotated[Count, says("Stopped before they were done.", 1)]
    skipped: Annotated[Count, says("Never to run.", 0)]


class Throughput(TypedDict):
    """What a queue ended per second, over the last minute."""

    succeeded_per_s: Annotated[Seconds, says("Jobs that succeeded.", 20.067)]
    dead_per_s: Annotated[Seconds, says("Jobs that were given up.", 0.05)]


class QueueSettings(TypedDict):
    """What an operator may set for a queue."""

    priority_aging_s: Annotated[
        Seconds, says("Seconds of waiting that outweigh one step of priority.", 60.0)
    ]


class Queue(TypedDict):
    """A queue."""

    name: Annotated[Name, says("Its name.", "mail")]
    paused: Annotated[bool, says("Whether nothing of it is started.", False)]
    counts: Counts
    oldest_ready_age_s: Annotated[
        float | None, says("How long the first in line has waited.", 0.85)
    ]
    throughput: Throughput
    settings: QueueSettings


class Autoscale(TypedDict):
    """What some queues have to do, and how many replicas they should have for it."""

    ready: Annotated[int, says("Jobs that could be started now: not those of paused queues.", 1200)]
    oldest_ready_age_s: Annotated[
        float, says("How long the oldest of them has waited; 0: there is none.", 12.5)
    ]
    slots: Annotated[int, says("Slots of the replicas that live and serve these queues.", 1000)]
    busy: Annotated[int, says("Slots that jobs of these queues hold.", 1000)]
    desired_replicas: Annotated[int, says("How many replicas there should be.", 3)]


class Worker(TypedDict):
    """Who runs jobs: a replica."""

    id: Annotated[Id, says("Its name in this life.", _WORKER)]
    host: Annotated[str, says("The machine that it runs on.", "penstock-7d4b9c")]
    version: Annotated[str, says("Of its code.", "0.1.0")]
    queues: Annotated[list[str], says("Names and globs that it serves and you see.", ["*"])]
    kinds: Annotated[list[str], says("What it has handlers for.", ["echo", "http"])]
    slots: Annotated[Count, says("How many jobs it runs at once.", 116)]
    running: Annotated[Count, says("How many it runs now.", 8)]
    started_at: Annotated[Time, says("When this life began.", "2026-11-17T07:20:00.000Z")]
    last_heartbeat_at: Annotated[Time, says("Its last sign of life.", "2026-11-18T11:06:39.512Z")]
    state: Annotated[
        Literal["live", "condemned"],
        says("`condemned`: given up, its jobs run elsewhere.", "live"),
    ]


class Live(TypedDict):
    """The event loop turns."""

    live: Annotated[Literal[True], says("Always true.", True)]


class Ready(TypedDict):
    """Whether this replica serves."""

    ready: Annotated[bool, says("Whether to send requests here.", True)]
    reasons: Annotated[list[str], says("Why not.", [])]
    degraded: Annotated[list[str], says("What is away but not needed.", ["redis"])]
    loops: Annotated[
        dict[str, float], says("Seconds since each loop's last sign of life.", {"promoter": 0.12})
    ]


class Fault(TypedDict):
    """One field at fault."""

    pointer: Annotated[str, says("RFC 6901, into the request's body.", "/jobs/3/priority")]
    detail: Annotated[str, says("What is wrong there.", "must be at most 9")]


class ProblemType(TypedDict):
    """What a type of problem means, and what to do about it."""

    type: Annotated[str, says("As problems have it.", "/problems/not-json")]
    title: Annotated[str, says("The same for all of this type.", "The body isn't JSON")]
    status: Annotated[int, says("As in the status line.", 400)]
    advice: Annotated[str, says("What to do.", "Send one JSON value in UTF-8.")]


class Problem(TypedDict):
    """Why a request was refused (RFC 9457). Branch on `type`, show `detail` to people."""

    type: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    title: Annotated[str, Field(description="The same for all problems of this type.")]
    status: Annotated[int, Field(description="As in the status line.")]
    detail: Annotated[str, Field(description="What is wrong this time, and what to do.")]
    errors: NotRequired[
        Annotated[list[Fault], Field(description="The fields at fault, 100 at most.")]
    ]
    state: NotRequired[
        Annotated[
            State | WorkflowState,
            Field(description="`wrong-state`: where the job or workflow stands."),
        ]
    ]
    job_id: NotRequired[
        Annotated[Id, Field(description="`duplicate-job`: the job that has the `unique_key`.")]
    ]
    parameter: NotRequired[
        Annotated[str, Field(description="`bad-query-parameter`, `bad-cursor`: which one.")]
    ]
    outcome: NotRequired[
        Annotated[
            Literal["unknown"],
            Field(description="`store-unavailable`: the request may have been carried out."),
        ]
    ]
    ready: NotRequired[Annotated[bool, Field(description="`not-ready`: as in `/readyz`.")]]
    reasons: NotRequired[Annotated[list[str], Field(description="`not-ready`: what is missing.")]]
    degraded: NotRequired[Annotated[list[str], Field(description="`not-ready`: as in `/readyz`.")]]
    loops: NotRequired[
        Annotated[dict[str, float], Field(description="`not-ready`: as in `/readyz`.")]
    ]


class Attempts(TypedDict):
    """A page of attempts."""

    items: list[Attempt]
    next_cursor: NextCursor


class Logs(TypedDict):
    """A page of log lines."""

    items: list[LogLine]
    next_cursor: NextCursor


class Queues(TypedDict):
    """A page of queues."""

    items: list[Queue]
    next_cursor: NextCursor


class Jobs(TypedDict):
    """A page of jobs."""

    items: list[ListedJob]
    next_cursor: NextCursor


class Workers(TypedDict):
    """A page of workers."""

    items: list[Worker]
    next_cursor: NextCursor
