"""Token buckets: so many at once, then so many a second."""

import threading
from dataclasses import dataclass

from penstock import clock

_HELD_S = 5.0


@dataclass(slots=True)
class Bucket:
    """For whoever has a lock and a clock. `at`: a reading of that."""

    tokens: float
    at: float

    def take(self, count: int, most: int, per_s: float, now: float) -> int:
        """Up to `count` whole tokens; the bucket holds `most` and gets `per_s`."""
        tokens = min(self.tokens + (now - self.at) * per_s, float(most))
        taken = min(count, int(tokens))
        self.tokens, self.at = tokens - taken, now
        return taken


class Budget:
    """A bucket that threads share: it holds what five seconds bring, but at least one."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._most = max(int(per_s * _HELD_S), 1)
        self._bucket = Bucket(float(self._most), clock.monotonic())
        self._lock = threading.RLock()  # finalisers may take too, whatever they interrupt

    def take(self, count: int) -> int:
        """As many of so many as there are."""
        with self._lock:
            return self._bucket.take(count, self._most, self.per_s, clock.monotonic())

    @property
    def is_spent(self) -> bool:
        self.take(0)
        return self._bucket.tokens < 1
