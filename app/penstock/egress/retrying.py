"""Which answers are worth another try, and when. Pure: the time comes in."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX_S = 3600.0
_TRANSIENT = frozenset({408, 425, 429})


def is_transient(status: int) -> bool:
    """Whether the same call may succeed later: 408, 425, 429 and 5xx."""
    return status in _TRANSIENT or status >= 500


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds that the server wants us to wait (RFC 9110, 10.2.3), 0 to 1 h, or None.

    A date is measured from the server's own `Date`, so that its clock may be wrong; without one
    from `now_s`, seconds since 1970. `headers` have lower-case names.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), RETRY_AFTER_MAX_S)
    until = _seconds(value)
    if until is None:
        return None
    since = _seconds(headers.get("date", ""))
    return min(max(until - (now_s if since is None else since), 0.0), RETRY_AFTER_MAX_S)


def _seconds(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
