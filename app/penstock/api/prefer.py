"""The `Prefer: wait=N` header (RFC 7240): how long a caller is willing to wait for the end."""

import re

from multidict import MultiMapping

WAIT_MAX_S = 60
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,40})"?\s*', re.IGNORECASE | re.ASCII)


def wait_s(headers: MultiMapping[str]) -> int | None:
    """Seconds, at most 60; None where there is no such wish or it can't be understood."""
    for header in headers.getall("Prefer", ()):
        for preference in header.split(","):
            found = _WAIT.fullmatch(preference.partition(";")[0])
            if found:
                return min(int(found[1]), WAIT_MAX_S)
    return None


def applied(seconds: int | None) -> dict[str, str]:
    """The header that says which wish was granted."""
    return {} if seconds is None else {"Preference-Applied": f"wait={seconds}"}
