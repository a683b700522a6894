"""The `traceparent` header (W3C Trace Context): kept on a job and passed to its handler."""

import re

from multidict import MultiMapping

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(headers: MultiMapping[str]) -> str | None:
    """The caller's trace, or None; one of another form is left out, as the standard asks."""
    sent = headers.get("traceparent")
    return sent if sent is not None and _FORM.fullmatch(sent) else None
