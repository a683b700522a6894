"""The only reader of a clock.

Time that decides anything is Postgres' or Redis'; the host's monotonic clock measures spans, and
`ServerClock` estimates another server's time from it, for minting ids and scoring shelves.
"""

import time
from datetime import UTC, datetime

monotonic = time.monotonic


def wall_s() -> float:
    """Seconds since 1970 by the host: for log lines and token lifetimes only."""
    return time.time()


def rfc3339(at: datetime) -> str:
    """`2026-11-21T10:00:00.123Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def rfc3339_of(seconds: float) -> str:
    """The same of seconds since 1970."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


class ServerClock:
    """Another server's clock, guessed from its last answer and our monotonic clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def observe(self, server_s: float, sent: float, received: float) -> None:
        """Takes in the server's time (s since 1970), read between two monotonic readings."""
        self._offset_s = server_s - (sent + received) / 2

    def at_least(self, server_s: float) -> None:
        """An answer of the server proves that its clock has come this far."""
        self._offset_s = max(self._offset_s, server_s - time.monotonic())

    def ahead_s(self) -> float:
        """How far that clock is ahead of this machine's."""
        return time.monotonic() + self._offset_s - time.time()

    def now_ms(self) -> int:
        return int((time.monotonic() + self._offset_s) * 1000)
