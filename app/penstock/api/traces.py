"""The headers `traceparent` and `tracestate` (W3C Trace Context): what a submission keeps of them.

While tracing is on it is the span of the request itself, which is in the caller's trace. A trace
that begins here and that nobody keeps isn't stored: it would say nothing, and cost each job
(decision 0032).
"""

from dataclasses import dataclass
from math import inf

from multidict import MultiMapping

from penstock.domain.trace import is_kept, trace_of
from penstock.telemetry import tracing


@dataclass(frozen=True, slots=True)
class Kept:
    """`jobs_max`: so many of its jobs are in it, the first ones."""

    trace: str | None
    jobs_max: float = inf


def kept(headers: MultiMapping[str], jobs: int = 1) -> Kept:
    """The trace that so many jobs keep which are submitted with these headers."""
    ours, callers = tracing.current(), sent(headers)
    if ours is None or callers is not None:
        return Kept(ours or callers)
    return Kept(ours, tracing.room_for(jobs)) if is_kept(ours) else Kept(None)


def sent(headers: MultiMapping[str]) -> str | None:
    """The caller's trace, or None; one of another form is left out, as the standard asks."""
    parent = headers.get("traceparent")
    if parent is None:
        return None
    return trace_of(parent, ",".join(headers.getall("tracestate", ())))
