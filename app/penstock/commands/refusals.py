"""What callers weren't let do, into the audit log; nobody waits for it.

In: entries of refused calls. Out: rows, a bounded number a minute, of one caller a sixth of them:
what is beyond that is counted only, so that who has a token can't fill the log. If we die before
they are stored, they are lost: nothing was changed.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from penstock import clock
from penstock.batcher import Batcher
from penstock.domain.audit_log import Entry
from penstock.domain.errors import BadRow, StoreUnavailable
from penstock.store.audit_log import AuditLog
from penstock.telemetry.metrics import Metrics

_WINDOW_S = 60.0
_SHARE = 6  # so much of a minute's entries, as a divisor, are one caller's at most
_ROWS_MAX = 500


class Refusals:
    """`per_min`: so many entries are stored; 0: none."""

    def __init__(
        self,
        log: AuditLog,
        per_min: int,
        metrics: Metrics,
        now_s: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._log = log
        self._per_min = per_min
        self._of_one = -(-per_min // _SHARE)
        self._metrics = metrics
        self._now_s = now_s
        self._window = 0.0
        self._counts: Counter[str] = Counter()
        self._batcher: Batcher[Entry] = Batcher(self._flush, _ROWS_MAX)
        self.run = self._batcher.run
        self.drained = self._batcher.drained

    def put(self, entry: Entry) -> None:
        if self._has_room(entry.actor):
            self._counts[entry.actor] += 1
            self._batcher.put((entry,))
        else:
            self._metrics.refusals_logged("left-out").inc()

    def _has_room(self, actor: str) -> bool:
        now = self._now_s()
        if now - self._window >= _WINDOW_S:
            self._window, self._counts = now, Counter()
        return self._counts.total() < self._per_min and self._counts[actor] < self._of_one

    async def _flush(self, batch: Sequence[Entry]) -> None:
        try:
            await self._log.add(batch)
        except (StoreUnavailable, BadRow):
            self._metrics.refusals_logged("lost").inc(len(batch))
        else:
            self._metrics.refusals_logged("stored").inc(len(batch))
