"""Tells all replicas which jobs are over, one publish a batch; speed only, lost without harm."""

from collections.abc import Sequence

from penstock.batcher import Batcher
from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.loops.waiters import Waiters
from penstock.queue import keys
from penstock.queue.shelves import Shelves

_IDS_MAX = 2000


class Herald:
    def __init__(self, shelves: Shelves, waiters: Waiters) -> None:
        self._shelves = shelves
        self._waiters = waiters
        self._batcher: Batcher[JobId] = Batcher(self._publish, _IDS_MAX)
        self.run = self._batcher.run

    def ended(self, ids: Sequence[JobId]) -> None:
        """These jobs are over: those who wait here hear it now, those elsewhere soon."""
        self._waiters.tell(ids)
        self._batcher.put(ids)

    async def _publish(self, ids: Sequence[JobId]) -> None:
        try:
            await self._shelves.tell(keys.ENDED, b"".join(ids))
        except QueueUnavailable:
            pass  # they ask Postgres once a second
