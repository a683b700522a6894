"""The audit log's entries: who did what, to what, from where. Pure.

Not the self-audit (`store/audit.py`), which looks for jobs in two places. An entry is made where a
call is let in, and stored by the transaction that does what it tells of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

OBJECT_MAX = 255  # characters of the name of what a refused call was about


class Object(StrEnum):
    """The sorts of things that something is done to."""

    JOB = "job"
    WORKFLOW = "workflow"
    QUEUE = "queue"
    LETTER = "dead_letter"
    DELIVERY = "delivery"
    ENDPOINT = "endpoint"
    NOTIFICATION = "notification"
    CONFIG = "config"


class Action(StrEnum):
    """What was done: the sort of thing that it was done to, and a verb."""

    JOB_SUBMIT = "job.submit"
    JOB_SUBMIT_MANY = "job.submit_many"
    JOB_CANCEL = "job.cancel"
    JOB_RETRY = "job.retry"
    WORKFLOW_SUBMIT = "workflow.submit"
    WORKFLOW_ADD = "workflow.add"
    WORKFLOW_CANCEL = "workflow.cancel"
    WORKFLOW_RETRY = "workflow.retry"
    QUEUE_PAUSE = "queue.pause"
    QUEUE_RESUME = "queue.resume"
    LETTER_REPLAY = "dead_letter.replay"
    LETTER_REPLAY_MANY = "dead_letter.replay_many"
    LETTER_DISCARD = "dead_letter.discard"
    DELIVERY_RESEND = "delivery.resend"
    ENDPOINT_ENABLE = "endpoint.enable"
    NOTIFICATION_TEST = "notification.test"
    CONFIG_RELOAD = "config.reload"

    @property
    def object(self) -> Object:
        """The sort of thing that it is done to."""
        return Object(object_of(self.value))


def object_of(action: str) -> str:
    """The same of an action that may be of a later version: its entries are read here, too."""
    return action.partition(".")[0]


# What there may be thousands of a second: `audit_log.submissions` leaves them out, and an index of
# all else (migration 0016) has to know them.
SUBMISSIONS = frozenset(
    {Action.JOB_SUBMIT, Action.JOB_SUBMIT_MANY, Action.WORKFLOW_SUBMIT, Action.WORKFLOW_ADD}
)


class EntryOutcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"  # to a caller who may not


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. `id`: a UUIDv7, by which an entry that is stored twice is stored once. `actor`: a
    token's `sub`, or what acts by itself: `signal`, `file`, `poll`. `details`: small, JSON, and
    never what may be secret. The time is that of Postgres when it is stored."""

    id: bytes
    action: Action
    actor: str
    roles: str = ""  # with commas
    address: str | None = None
    request_id: str | None = None
    object_id: str | None = None
    queue: str | None = None
    outcome: EntryOutcome = EntryOutcome.DONE
    details: Mapping[str, Any] = field(default_factory=dict)

    def about(self, object_id: str | None, queue: str | None = None, **details: Any) -> "Entry":
        """The same, of this object."""
        return replace(self, object_id=object_id, queue=queue, details={**self.details, **details})

    def changed(self, what: str, before: Any, after: Any) -> "Entry":
        """The same, with what was changed: from what to what."""
        return self.with_(before={what: before}, after={what: after})

    def refused(self) -> "Entry":
        """The same, as what wasn't let happen."""
        return replace(self, outcome=EntryOutcome.REFUSED)

    def with_(self, **details: Any) -> "Entry":
        """The same, with more details."""
        return replace(self, details={**self.details, **details})


@dataclass(frozen=True, slots=True)
class EntryView:
    """A row as it is read. `details` is JSON text."""

    id: bytes
    at: datetime
    actor: str
    roles: str
    action: str
    object_id: str | None
    queue: str | None
    outcome: str
    address: str | None
    request_id: str | None
    details: str | None
