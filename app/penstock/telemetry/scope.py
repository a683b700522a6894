"""What the lines are about that are logged just now: a request, or an attempt of a job.

In: `token = enter(subject)`, in the coroutine or thread that works on it, and `leave(token)`. Out:
`fields()`, which each line logged meanwhile carries, whoever logs it: we, a handler, a library. It
is asked only when a line is written, so that to enter costs next to nothing.
"""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Protocol

_NOTHING: Mapping[str, object] = {}


class Subject(Protocol):
    """What a line may be about."""

    def log_fields(self) -> Mapping[str, object]: ...


Entered = Token[Subject]

_about: ContextVar[Subject] = ContextVar("penstock_about")


def enter(subject: Subject) -> Entered:
    """Lines are about that from now on, here and in what is begun here."""
    return _about.set(subject)


def leave(entered: Entered) -> None:
    """As it was before: where nothing was, no variable is left set."""
    _about.reset(entered)


def fields() -> Mapping[str, object]:
    subject = _about.get(None)
    return _NOTHING if subject is None else subject.log_fields()


@dataclass(slots=True)
class Request:
    """A caller's request; more becomes known of it on its way."""

    request_id: str
    route: str
    caller: str = ""
    trace_id: str | None = None

    def log_fields(self) -> Mapping[str, object]:
        told = {"request_id": self.request_id, "route": self.route}
        if self.caller:
            told["caller"] = self.caller
        if self.trace_id is not None:
            told["trace_id"] = self.trace_id
        return told
