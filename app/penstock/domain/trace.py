"""The trace that something was asked for in, as W3C Trace Context has it: one text of two headers.

`traceparent`, and behind a space `tracestate` where there is one (decision 0032): it goes as one
from place to place, and is taken apart where it is shown or sent.
"""

import re

TRACESTATE_MAX = 512  # characters: what everybody passes on (W3C Trace Context, 3.3.1.5)
_MEMBERS_MAX = 32

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,240}(?:@[a-z][a-z0-9_\-*/]{0,13})?"
_MEMBER = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


def trace_of(traceparent: str | None, tracestate: str = "") -> str | None:
    """The trace that a caller sent. One of another form is left out, as the standard asks; so is a
    state that is malformed or too long, but then the rest stands."""
    if traceparent is None or not _PARENT.fullmatch(traceparent):
        return None
    members = [one.strip() for one in tracestate.split(",")] if tracestate else []
    members = [one for one in members if one]
    state = ",".join(members)
    fits = len(state) <= TRACESTATE_MAX and len(members) <= _MEMBERS_MAX
    if not state or not fits or not all(map(_MEMBER.fullmatch, members)):
        return traceparent
    return f"{traceparent} {state}"


def sound(trace: str | None) -> str | None:
    """A stored one if it is as `trace_of` makes it: no row that somebody tampered with breaks what
    runs."""
    return trace if trace is not None and _PARENT.fullmatch(trace.partition(" ")[0]) else None


def parent_of(trace: str | None) -> str | None:
    """Its `traceparent`."""
    return None if trace is None else trace.partition(" ")[0]


def state_of(trace: str | None) -> str | None:
    """Its `tracestate`, if it has one."""
    return None if trace is None else trace.partition(" ")[2] or None


def id_of(trace: str | None) -> str | None:
    """What all spans of it share."""
    return None if trace is None else trace[3:35]


def is_kept(trace: str) -> bool:
    """Whether who began it wants its spans: the flag `sampled`."""
    return bool(int(trace[54], 16) & 1)


def headers_of(trace: str | None) -> dict[str, str]:
    """How it is sent on."""
    if trace is None:
        return {}
    parent, _, state = trace.partition(" ")
    return {"traceparent": parent, "tracestate": state} if state else {"traceparent": parent}
