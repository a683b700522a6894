"""What readers see: jobs, their attempts and logs, queues, workers. From store, shown by api."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.retry import Backoff
from penstock.domain.workflow import WorkflowState


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far the latest attempt says that it has come, 0 to 100."""

    percent: float
    message: str | None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as it stands now. `payload`, `result` and `error` are JSON text."""

    id: JobId
    queue: str
    kind: str
    state: State
    priority: int
    payload: str
    result: str | None
    error: str | None
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    on_lost: str
    backoff: Backoff
    timeout_s: float
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    reason: str | None
    worker: bytes | None
    tags: tuple[str, ...]
    traceparent: str | None
    created_by: str
    unique_key: str | None = None
    expires_at: datetime | None = None
    progress: ProgressView | None = None
    workflow_id: JobId | None = None
    name: str | None = None
    depends_on: tuple[str, ...] = ()
    run_if: str | None = None  # null where it depends on nothing
    notify: str | None = None  # JSON text of its wishes; null: none
    follows: int = 0  # see `terms.followed`

    @property
    def size(self) -> int:
        """Bytes of the JSON texts and of the names in it."""
        texts = [text for text in (self.payload, self.result, self.error, self.notify) if text]
        return sum(map(_bytes, texts)) + names_size(self.depends_on)


def names_size(names: Sequence[str]) -> int:
    """Bytes of a list of names in JSON, about."""
    return sum(map(_bytes, names)) + 3 * len(names)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, slots=True)
class MemberView:
    """A job of a workflow, in short."""

    id: JobId
    name: str
    kind: str
    queue: str
    state: State
    depends_on: Sequence[str]
    run_if: str | None
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadJobView:
    """A dead job as its workflow names it; the error as far as it is kept, its message cut."""

    id: JobId
    name: str
    kind: str
    error_type: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A workflow without its jobs, which are counted by state. `held_by`: the job whose work it
    is; `queues` are those of all its jobs."""

    id: JobId
    name: str
    state: WorkflowState
    on_failure: str
    queues: Sequence[str]
    counts: Mapping[State, int]
    halt: str | None
    held_by: JobId | None
    created_by: str
    traceparent: str | None
    finished_at: datetime | None
    notify: str | None = None  # JSON text


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt; the one under way has neither `outcome` nor `finished_at`."""

    attempt: int
    worker: bytes
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    error: str | None  # JSON text
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True)
class LogView:
    """One line; `seq` numbers those of an attempt."""

    at: datetime
    attempt: int
    level: str
    message: str
    seq: int


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue with its jobs counted by state and what it ended per second in the last minute."""

    name: str
    paused: bool
    priority_aging_s: float
    counts: dict[State, int]
    oldest_ready_age_s: float | None
    succeeded_per_s: float
    dead_per_s: float


@dataclass(frozen=True, slots=True)
class WorkerView:
    """Who runs jobs. `queues` are globs; `running` counts the attempts under its name."""

    id: bytes
    host: str
    version: str
    queues: Sequence[str]
    kinds: Sequence[str]
    slots: int
    started_at: datetime
    last_heartbeat_at: datetime
    condemned: bool
    running: int
