"""The headers `traceparent` and `tracestate` (W3C Trace Context): what a submission keeps of them.

While tracing is on it is the span of the request itself, which is in the caller's trace.
"""

from multidict import MultiMapping

from penstock.domain.trace import trace_of
from penstock.telemetry import tracing


def kept(headers: MultiMapping[str]) -> str | None:
    """The trace that jobs keep which are submitted with these headers."""
    return tracing.current() or sent(headers)


def sent(headers: MultiMapping[str]) -> str | None:
    """The caller's trace, or None; one of another form is left out, as the standard asks."""
    parent = headers.get("traceparent")
    if parent is None:
        return None
    return trace_of(parent, ",".join(headers.getall("tracestate", ())))
