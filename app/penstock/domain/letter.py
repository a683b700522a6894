"""Dead letters: each death of a job, kept until it is dealt with, and as history after that."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from penstock.domain.audit_log import Entry
from penstock.domain.ids import JobId


class Resolution(StrEnum):
    """What was done about a death."""

    REPLAYED = "replayed"  # run again as a dead letter
    RETRIED = "retried"  # run again as a job, or with its workflow
    DISCARDED = "discarded"
    PRUNED = "pruned"  # nothing, until its job was deleted for its age


class Which(StrEnum):
    """Which dead letters a list shows."""

    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


class Message(StrEnum):
    """Where a dead letter's message to the broker is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    NONE = "none"  # there was no broker when the job died


@dataclass(frozen=True, slots=True)
class Renewal:
    """A new life for jobs: by whom, and how their dead letters are resolved by it.

    `only`: of what there is to run again, this job must be. It alone gets `payload` (JSON text) and
    `queue`, each kept where it is None. Nothing runs before `delay_s` seconds from now. `entry` is
    what the audit log tells of it.
    """

    by: str = ""
    how: Resolution = Resolution.RETRIED
    only: JobId | None = None
    payload: str | None = None
    queue: str | None = None
    delay_s: float = 0.0
    entry: Entry | None = None

    @property
    def changes(self) -> bool:
        return self.payload is not None or self.queue is not None


RETRY = Renewal()


@dataclass(frozen=True, slots=True)
class LetterView:
    """One death. `error` is JSON text, None once its attempt is deleted."""

    job: JobId
    attempt: int
    queue: str
    kind: str
    error_type: str
    fingerprint: str
    reason: str | None
    died_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    error: str | None
    message: Message


@dataclass(frozen=True, slots=True)
class GroupView:
    """Open dead letters that are alike; job, attempt, queue and error are those of the newest."""

    fingerprint: str
    kind: str
    error_type: str
    count: int
    first: datetime
    last: datetime
    job: JobId
    attempt: int
    queue: str
    error: str | None
