"""How an attempt ended. An outcome is not a state: `verdict` decides what becomes of the job."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"  # its worker was condemned; nobody knows how far it came
    CRASHED = "crashed"  # its child process died, and nobody else with it
    RELEASED = "released"  # handed back at shutdown; nothing spent
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as `error` shows it. `details` is any JSON value."""

    type: str
    message: str
    details: Any = None

    def as_json(self) -> dict[str, Any]:
        return {"type": self.type, "message": self.message, "details": self.details}


@dataclass(frozen=True, slots=True)
class Ending:
    """What a worker reports of an attempt. `result` is JSON text."""

    outcome: Outcome
    result: str | None = None
    failure: Failure | None = None
    retryable: bool = True
    retry_after_s: float | None = None  # the handler's wish, at least this long


RELEASED = Ending(Outcome.RELEASED)
CANCELLED = Ending(Outcome.CANCELLED)
LOST = Ending(
    Outcome.LOST,
    failure=Failure("worker-lost", "the worker that ran this attempt was lost with it"),
)
