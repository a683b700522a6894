"""The scheduler coroutine: moves what is due from the scheduled shelves to the ready shelves.

Sleeps until the next due time, or until something earlier arrives. Every replica with the role
does it; the script moves each id once. If we die here, another promoter moves it, and at last
the reconciler finds it at the head of Postgres' line.
"""

import asyncio

from penstock import clock
from penstock.domain.errors import QueueUnavailable
from penstock.queue.shelves import CHUNK, Promoted, Shelves
from penstock.telemetry.metrics import Metrics

_REST_S = 5.0
_LATEST_S = 0.001


class Promoter:
    def __init__(self, shelves: Shelves, metrics: Metrics) -> None:
        self._shelves = shelves
        self._lag = metrics.schedule_lag()
        self._due_at: dict[str, float] = {}  # queue -> monotonic time of its next due job
        self.wake = asyncio.Event()

    def expect(self, queue: str, in_s: float) -> None:
        """Something on this queue's scheduled shelf is due so soon."""
        at = clock.monotonic() + in_s
        if at < self._due_at.get(queue, at + 1):
            self._due_at[queue] = at
            self.wake.set()

    async def step(self) -> float:
        now = clock.monotonic()
        for queue in [queue for queue, at in self._due_at.items() if at <= now]:
            await self._promote(queue)
        nearest = min(self._due_at.values(), default=now + _REST_S)
        return max(nearest - clock.monotonic(), 0.0)

    async def _promote(self, queue: str) -> None:
        self._due_at.pop(queue, None)  # first: what others expect meanwhile stands
        try:
            while (promoted := await self._promote_some(queue)).count == CHUNK:
                pass
        except QueueUnavailable:
            self.expect(queue, 0.0)
            raise
        if promoted.next_in_s is not None:
            self.expect(queue, max(promoted.next_in_s, 0) + _LATEST_S)

    async def _promote_some(self, queue: str) -> Promoted:
        promoted = await self._shelves.promote(queue, CHUNK)
        if promoted.late_s is not None:
            self._lag.observe(max(promoted.late_s, 0.0))
        return promoted
