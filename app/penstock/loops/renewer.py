"""Keeps the leases of what this replica holds, and brings back what others let expire.

A lease spares double work; the truth of who runs what is job_running. If we die here, our leases
end within seconds, and start refuses whatever is still running.
"""

import asyncio

from penstock import chaos, clock
from penstock.clock import ServerClock
from penstock.loops.held import Held
from penstock.loops.parts import Parts
from penstock.queue.shelves import Off

_REST_S = 60.0  # the surveyor wakes us


class Renewer:
    def __init__(self, parts: Parts, held: Held, redis_clock: ServerClock) -> None:
        self._parts = parts
        self._held = held
        self._redis_clock = redis_clock
        self._expired: set[str] = set()
        self.wake = asyncio.Event()

    async def renew(self) -> float:
        """One call a queue for all that we hold there."""
        lease_s = self._parts.settings.queue.lease_s
        for queue, ids in self._held.by_queue().items():
            await self._parts.shelves.renew(queue, ids, lease_s)
            self._parts.metrics.leases_renewed.inc(len(ids))
        return self._parts.settings.queue.renew_s

    async def read_clock(self) -> float:
        """Measures Redis' clock; at the same time the probe that finds out that it is back."""
        sent = clock.monotonic()
        now_s = await self._parts.shelves.time()
        self._redis_clock.observe(now_s, sent, clock.monotonic())
        return 1.0

    def expect_expired(self, queue: str) -> None:
        """Leases of this queue are over."""
        self._expired.add(queue)
        self.wake.set()

    async def return_expired(self) -> float:
        """Ids whose lease is over go back in line if Postgres says that they are due."""
        while self._expired:
            queue = self._expired.pop()
            ids = await self._parts.shelves.expired(queue)
            if ids:
                self._parts.metrics.leases_expired.inc(len(ids))
                await chaos.point("before_return")
            due = await self._parts.line.among(ids)
            self._parts.enqueuer.put(due, [Off(queue, id_) for id_ in ids])
        return _REST_S
