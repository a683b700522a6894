"""Keeps the leases of what this replica holds, and brings back what others let expire.

A lease spares double work; the truth of who runs what is job_running. If we die here, our leases
end within seconds, and start refuses whatever is still running.
"""

from penstock import clock
from penstock.clock import ServerClock
from penstock.loops.held import Held
from penstock.loops.parts import Parts
from penstock.queue.shelves import Off


class Renewer:
    def __init__(self, parts: Parts, held: Held, redis_clock: ServerClock) -> None:
        self._parts = parts
        self._held = held
        self._redis_clock = redis_clock

    async def renew(self) -> float:
        """One call a queue for all that we hold there."""
        lease_s = self._parts.settings.queue.lease_s
        for queue, ids in self._held.by_queue().items():
            await self._parts.shelves.renew(queue, ids, lease_s)
        return self._parts.settings.queue.renew_s

    async def read_clock(self) -> float:
        """Measures Redis' clock; at the same time the probe that finds out that it is back."""
        sent = clock.monotonic()
        now_s = await self._parts.shelves.time()
        self._redis_clock.observe(now_s, sent, clock.monotonic())
        return 1.0

    async def return_expired(self) -> float:
        """Ids whose lease is over go back in line if Postgres says that they are due."""
        for queue in self._parts.book.names():
            ids = await self._parts.shelves.expired(queue)
            if ids:
                due = await self._parts.line.among(ids)
                self._parts.enqueuer.put(due, [Off(queue, id_) for id_ in ids])
        return self._parts.settings.queue.lease_s / 5
