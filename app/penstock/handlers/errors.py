"""How a handler says that it failed, and what the worker reports of it.

In: whatever a handler raised. Out: an `Ending` that can be stored. Always holds: `failure_of`
never raises, whatever the exception's class does when it is looked at.
"""

import math
from collections.abc import Iterator
from itertools import dropwhile
from types import TracebackType
from typing import Any

import orjson

from penstock.domain.attempt import CANCELLED, Ending, Failure, Outcome
from penstock.domain.errors import PenstockError
from penstock.egress.errors import EgressError, EgressRefused
from penstock.handlers.results import Unstorable, encode
from penstock.handlers.text import cut, storable

TYPE_MAX_BYTES = 200
MESSAGE_MAX_BYTES = 2048
DETAILS_MAX_BYTES = 16 * 1024
FRAMES_MAX = 20
FRAME_MAX_BYTES = 300
_OURS = "penstock.loops."
AFTER_MAX_S = 5 * 366 * 24 * 3600.0  # as far as `run_at` reaches


class HandlerError(PenstockError):
    """A handler can't be registered: the message names its module and kind."""


class Cancelled(PenstockError):
    """Raised inside a plain function that asked whether it should go on, and should not."""


class AttemptFailed(PenstockError):
    """The attempt failed as the handler tells it; retried by the job's back-off.

    `type` groups failures (default: the class's name), `details` is any JSON value.
    """

    retryable = True
    after_s: float | None = None

    def __init__(self, message: str, type: str | None = None, details: Any = None) -> None:
        super().__init__(message)
        self.type = type
        self.details = details


class PermanentError(AttemptFailed):
    """The attempt failed and the next one would too: the job is dead at once."""

    retryable = False


class RetryLater(AttemptFailed):
    """The attempt failed; the next one starts no earlier than in `after_s` seconds."""

    def __init__(
        self, message: str, after_s: float, type: str | None = None, details: Any = None
    ) -> None:
        if math.isnan(after_s) or after_s < 0:
            raise ValueError("after_s must be 0 or more")
        super().__init__(message, type, details)
        self.after_s = min(float(after_s), AFTER_MAX_S)


class BadPayload(PermanentError):
    """The payload is not what the kind takes. `details`: [{"pointer", "detail"}, …]."""

    def __init__(self, kind: str, faults: list[tuple[str, str]]) -> None:
        details = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
        super().__init__(f"the payload does not fit the kind {kind!r}", "bad-payload", details)


_OWN_TYPES: dict[type[BaseException], str] = {
    AttemptFailed: "attempt-failed",
    PermanentError: "permanent-error",
    RetryLater: "retry-later",
    EgressRefused: "egress-refused",
    EgressError: "egress-failed",
}


def failure_of(exc: BaseException) -> Ending:
    """The ending of an attempt whose handler raised `exc`. Never raises."""
    try:
        return CANCELLED if isinstance(exc, Cancelled) else _ending(exc)
    except BaseException:  # a foreign class may do anything when it is looked at, even exit
        failure = Failure("unknown", "the handler raised an exception that can't be shown")
        return Ending(Outcome.FAILED, failure=failure)


def _ending(exc: BaseException) -> Ending:
    kind, details = _type(exc), {"traceback": _frames(exc.__traceback__)}
    message = cut(storable(_message(exc)), MESSAGE_MAX_BYTES)
    if not isinstance(exc, AttemptFailed):
        retryable = not isinstance(exc, EgressRefused)
        return Ending(Outcome.FAILED, failure=Failure(kind, message, details), retryable=retryable)
    own = details if exc.details is None else _storable_details(exc.details)
    return Ending(
        Outcome.FAILED,
        failure=Failure(kind, message, own),
        retryable=exc.retryable,
        retry_after_s=exc.after_s,
    )


def _type(exc: BaseException) -> str:
    """What the handler said, else one of our words, `ValueError` or `module.Class`."""
    said = exc.type if isinstance(exc, AttemptFailed) else None
    cls = type(exc)
    if said:
        name = str(said)
    elif cls in _OWN_TYPES:
        name = _OWN_TYPES[cls]
    else:
        name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    return cut(storable(name), TYPE_MAX_BYTES)


def _message(exc: BaseException) -> str:
    try:
        return str(exc) or type(exc).__name__
    except BaseException:  # __str__ is foreign code
        return f"{type(exc).__name__}, whose message can't be shown"


def _frames(traceback: TracebackType | None) -> list[str]:
    """The innermost frames, outermost first, as `module:line in function`; without those by which
    we came to the handler, unless there are no others."""
    every = list(_walk(traceback))
    frames = list(dropwhile(lambda frame: frame.startswith(_OURS), every)) or every
    return [cut(storable(frame), FRAME_MAX_BYTES) for frame in frames[-FRAMES_MAX:]]


def _walk(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__", "?")
        yield f"{module}:{traceback.tb_lineno} in {frame.f_code.co_qualname}"
        traceback = traceback.tb_next


def _storable_details(details: Any) -> Any:
    """`details` as it came, or why it was left out."""
    try:
        encoded = encode(details)
    except Unstorable as exc:
        return {"left_out": cut(storable(f"the details can't be kept: {exc}"), 500)}
    if len(encoded) > DETAILS_MAX_BYTES:
        return {"left_out": f"the details have more than {DETAILS_MAX_BYTES} bytes"}
    return orjson.loads(encoded)
