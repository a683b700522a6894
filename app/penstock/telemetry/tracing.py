"""Spans, by OpenTelemetry's API: what is done, in which trace, and how it went.

In: `begin(...)` where something begins and `end()` where it is over. Out: spans, to whoever takes
them: our exporter (`spans.py`, extra [otel]).
Always holds: while tracing is off (`is_on()`), nobody makes a span; contexts pass through as they
came. Names and attributes follow OpenTelemetry's semantic conventions for HTTP and messaging.
"""

from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from penstock import VERSION
from penstock.telemetry.bucket import Budget

SERVER, CLIENT = SpanKind.SERVER, SpanKind.CLIENT
CONSUMER, PRODUCER = SpanKind.CONSUMER, SpanKind.PRODUCER

_TOLD_MAX = 1000
_CONTEXTS = 256  # of batches under way: their jobs share a trace

Sent = Callable[[int, bool], None]  # so many, and whether they were taken
Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Export:
    """Where spans go. `endpoint`: base URL of a collector, else what `OTEL_…` says; `headers`:
    `name=value,name=value`, percent-encoded. Of the traces that begin here `sample_ratio` are kept,
    else so many `per_s`, else as `OTEL_…` says."""

    endpoint: str | None = None
    headers: str | None = field(default=None, repr=False)
    sample_ratio: float | None = None
    per_s: float | None = None
    timeout_s: float = 10.0
    waiting_max: int = 2048


@dataclass(slots=True)
class Losses:
    """Spans that no collector has, since the start: no room to wait, or it didn't take them."""

    full: int = 0
    refused: int = 0


losses = Losses()  # of this process


@dataclass(slots=True)
class _Now:
    """Who makes spans; None while tracing is off. There is one, as there is one API."""

    tracer: Tracer | None = None
    budget: Budget | None = None


_now = _Now()


def use(provider: TracerProvider | None, budget: Budget | None = None) -> None:
    """From now on spans are made by that one, or none. `budget`: of the traces that begin here,
    one each; and of the jobs in them, beyond the first."""
    _now.tracer = None if provider is None else provider.get_tracer("penstock", VERSION)
    _now.budget = budget


def is_on() -> bool:
    return _now.tracer is not None


class Begun:
    """A span under way. `trace`: its context, to be stored or sent on."""

    __slots__ = ("_entered", "_is_over", "span", "trace")

    def __init__(self, span: Span, trace: str, entered: "Token[Context] | None") -> None:
        self.span = span
        self.trace = trace
        self._entered = entered
        self._is_over = False

    @property
    def is_kept(self) -> bool:
        """Whether anybody will see it."""
        return self.span.is_recording()

    def told(self, attributes: Attributes, name: str | None = None) -> None:
        """What became known on the way."""
        if name is not None:
            self.span.update_name(name)
        self.span.set_attributes(attributes)

    def end(self, error: str | None = None, told: str = "") -> None:
        """It is over; `error`: of which type it failed, `told`: what is said of that."""
        if error is not None:
            self.span.set_attribute("error.type", error)
            if told:
                event = {"exception.type": error, "exception.message": told[:_TOLD_MAX]}
                self.span.add_event("exception", event)
            self.span.set_status(Status(StatusCode.ERROR, told[:_TOLD_MAX] or None))
        self.span.end()
        self._is_over = True
        if self._entered is not None:
            contexts.detach(self._entered)

    def give_up(self) -> None:
        """Nothing came of it: for where it may have ended already."""
        if not self._is_over:
            self.end("cancelled")


@dataclass(frozen=True, slots=True)
class Within:
    """Where a span stands: in `trace`, as a child of what that names, and with a link to it if
    `is_linked`; without one, in the span that is current. `enters`: it is current until its end."""

    trace: str | None = None
    is_linked: bool = False
    enters: bool = False


def begin(name: str, kind: SpanKind, attributes: Attributes, within: Within) -> Begun:
    """Begins a span; only while tracing is on."""
    assert _now.tracer is not None
    around = context_of(within.trace) if within.trace is not None else None
    links = None
    if within.is_linked and around is not None:
        links = [Link(get_current_span(around).get_span_context())]
    span = _now.tracer.start_span(name, around, kind, attributes, links)
    entered = None
    if within.enters:
        entered = contexts.attach(set_span_in_context(span, around))
    return Begun(span, written(span.get_span_context()), entered)


def passed_through(trace: str) -> Begun:
    """Of a trace that nobody keeps: in the place of a span what it would be below, which is current
    until its end. A span costs ten times as much, and nobody would see it."""
    around = context_of(trace)
    return Begun(get_current_span(around), trace, contexts.attach(around))


def room_for(count: int) -> float:
    """How many of so many jobs that are submitted in one kept trace of ours may be in it; the first
    came in with its request."""
    return inf if _now.budget is None else 1 + _now.budget.take(max(count - 1, 0))


def has_room() -> bool:
    """Whether a trace that begins now may be kept: else it needs no span."""
    return _now.budget is None or not _now.budget.is_spent


def is_in_trace() -> bool:
    """Whether something under way here is in a trace, so that what it calls for is too."""
    return _now.tracer is not None and get_current_span().get_span_context().is_valid


def current() -> str | None:
    """The context of the span that is current, as it is stored and sent."""
    found = get_current_span().get_span_context()
    return written(found) if found.is_valid else None


def enter(trace: str | None) -> None:
    """What is begun here from now on is in that trace: for a child process, whose parent has the
    span."""
    if trace is not None:
        contexts.attach(context_of(trace))


@lru_cache(maxsize=_CONTEXTS)
def context_of(trace: str) -> Context:
    """Of a trace that was checked when it came in."""
    parent, _, state = trace.partition(" ")
    found = SpanContext(
        int(parent[3:35], 16),
        int(parent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(parent[53:55], 16)),
        trace_state=TraceState.from_header([state]) if state else None,
    )
    return set_span_in_context(NonRecordingSpan(found), Context())


def written(found: SpanContext) -> str:
    """A span's context as one text (`domain/trace.py`)."""
    parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
    return f"{parent} {found.trace_state.to_header()}" if found.trace_state else parent
