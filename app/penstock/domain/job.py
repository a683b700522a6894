"""A job: what was asked for, where it can stand, and what one attempt of it needs to know."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from penstock.domain.ids import JobId
from penstock.domain.retry import DEFAULT_BACKOFF, Backoff

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,62}$"  # queues and kinds; safe in Redis keys and metrics


class State(StrEnum):
    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


TERMINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED})


class OnLost(StrEnum):
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated submission. `payload` is JSON text, stored as it is."""

    id: JobId
    queue: str
    kind: str
    payload: str = "null"
    priority: int = 5  # 0 to 9, 9 first
    run_at: datetime | None = None  # None: now; the past counts as now
    delay_s: float | None = None  # instead of run_at, counted from the commit
    max_attempts: int = 5
    backoff: Backoff = DEFAULT_BACKOFF
    timeout_s: float = 300.0
    on_lost: OnLost = OnLost.RETRY
    tags: tuple[str, ...] = ()
    traceparent: str | None = None
    created_by: str = ""
    expires_at: datetime | None = None  # not started by then: cancelled
    ttl_s: float | None = None  # instead of expires_at, counted from the commit
    unique_key: str | None = None  # no two live jobs of the queue have the same
    return_holder: bool = False  # where the key is taken: its holder is the answer, not a refusal
    workflow_id: JobId | None = None
    name: str | None = None  # in its workflow
    depends_on: tuple[str, ...] = ()  # as asked: names in its workflow, else ids
    parents: tuple[JobId, ...] = ()  # the same as ids
    run_if: str = "all_succeeded"  # a RunIf; counts where there are parents
    notify: str | None = None  # JSON text of its wishes; see `effect.wishes_from`
    follows: int = 0  # what of it the configuration says, then as it is now: see `terms`


@dataclass(frozen=True, slots=True)
class Due:
    """A place in line: what a shelf needs to know of a due job. `ready_ms` is Postgres' time."""

    id: JobId
    queue: str
    kind: str
    priority: int
    ready_ms: int


@dataclass(frozen=True, slots=True)
class Started:
    """One attempt that has begun: the row that start moved, with the job's specification."""

    id: JobId
    attempt: int
    worker: bytes  # WorkerId; with id and attempt the fence
    queue: str
    kind: str
    priority: int
    payload: str  # JSON text
    failures: int
    losses: int
    crashes: int
    max_attempts: int
    backoff: Backoff
    timeout_s: float
    on_lost: OnLost
    ready_at: datetime
    started_at: datetime
    tags: tuple[str, ...] = field(default=())
    traceparent: str | None = None
    created_by: str = ""
    notify: str | None = None  # JSON text of its wishes; see `effect.wishes_from`
    follows: int = 0  # what of it the configuration says: see `terms.followed`
    graph_id: JobId | None = None  # its workflow, or workflow.LOOSE: others depend on its end
    first_started_at: datetime | None = None  # of its life, where it was tried before
