"""What readers see: jobs, their attempts and logs, queues, workers. From store, shown by api."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.retry import Backoff


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

    @property
    def size(self) -> int:
        """Bytes of the JSON texts."""
        texts = [text for text in (self.payload, self.result, self.error) if text]
        return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)


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
