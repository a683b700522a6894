"""How many lines of one name may be written: a burst, then so many a second.

In: the name of each line, by `passes`. Out: whether it is written; `take` tells what was held back.
Always holds: a line that repeats takes no room from others; names are ours and few.
"""

import os
import threading
from dataclasses import dataclass

from penstock import clock
from penstock.telemetry.bucket import Bucket

_NAMES_MAX = 1000
_OTHER = "other"


@dataclass(slots=True)
class _Bucket(Bucket):
    held: int = 0


class Share:
    """`burst` 0: no limit."""

    def __init__(self, burst: int = 0, per_s: float = 0.0) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._be_copy()
        os.register_at_fork(after_in_child=self._be_copy)
        self._told_at = clock.monotonic()
        self._untold = 0
        self.held = 0  # of all names, ever
        self.use(burst, per_s)

    def _be_copy(self) -> None:
        """The lock may be entered twice: finalisers log too, whatever they interrupt. In a copy of
        this process whoever held it isn't there."""
        self._lock = threading.RLock()

    def use(self, burst: int, per_s: float) -> None:
        """These count from now on."""
        self._burst, self._per_s = burst, per_s

    def passes(self, name: str) -> bool:
        if not self._burst:
            return True
        now = clock.monotonic()
        with self._lock:
            bucket = self._bucket(name, now)
            if bucket.take(1, self._burst, self._per_s, now):
                return True
            bucket.held += 1
            self.held += 1
            self._untold += 1
            return False

    def take(self, every_s: float) -> list[tuple[str, int]]:
        """How many lines of each name were held back since the last time; nothing where that was
        less than `every_s` ago."""
        now = clock.monotonic()
        if not self._untold or now - self._told_at < every_s:
            return []
        with self._lock:
            found = [(name, one.held) for name, one in self._buckets.items() if one.held]
            for one in self._buckets.values():
                one.held = 0
            self._untold, self._told_at = 0, now
        return found

    def _bucket(self, name: str, now: float) -> _Bucket:
        if name not in self._buckets and len(self._buckets) >= _NAMES_MAX:
            name = _OTHER
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(float(self._burst), now)
        return bucket
