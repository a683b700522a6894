"""What a job does: the decorator, what handlers get and may raise, and how a call ends."""

from penstock.handlers.context import Context, JobLog, LogLimits, LogLine, Progress, Services
from penstock.handlers.errors import (
    AttemptFailed,
    BadPayload,
    Cancelled,
    HandlerError,
    PermanentError,
    RetryLater,
    failure_of,
)
from penstock.handlers.gathered import Bounds
from penstock.handlers.parents import ParentJob
from penstock.handlers.registry import Handler, Registry, handler
from penstock.handlers.results import ending_of

__all__ = [
    "AttemptFailed",
    "BadPayload",
    "Bounds",
    "Cancelled",
    "Context",
    "Handler",
    "HandlerError",
    "JobLog",
    "LogLimits",
    "LogLine",
    "ParentJob",
    "PermanentError",
    "Progress",
    "Registry",
    "RetryLater",
    "Services",
    "ending_of",
    "failure_of",
    "handler",
]
