"""The scheduler coroutine: moves what is due from the scheduled shelves to the ready shelves.

Sleeps until the next due time, or until something earlier arrives. Every replica with the role
does it; the script moves each id once. If we die here, another promoter moves it, and at last
the reconciler finds it at the head of Postgres' line.
"""

import asyncio
import random

from penstock import clock
from penstock.loops.book import QueueBook
from penstock.queue.shelves import CHUNK, Shelves

_SWEEP_S = 5.0  # the safety net: all queues are looked at so often
_LATEST_S = 0.001


class Promoter:
    def __init__(self, shelves: Shelves, book: QueueBook) -> None:
        self._shelves = shelves
        self._book = book
        self._due_at: dict[str, float] = {}  # queue -> monotonic time of its next due job
        self._sweep_at = 0.0
        self.wake = asyncio.Event()

    def expect(self, queue: str, in_s: float) -> None:
        """Something on this queue's scheduled shelf is due so soon."""
        at = clock.monotonic() + in_s
        if at < self._due_at.get(queue, at + 1):
            self._due_at[queue] = at
            self.wake.set()

    async def step(self) -> float:
        now = clock.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S * random.uniform(0.75, 1.25)
            for queue in self._book.names():
                self.expect(queue, 0)
        for queue in [queue for queue, at in self._due_at.items() if at <= now]:
            await self._promote(queue)
        nearest = min([self._sweep_at, *self._due_at.values()])
        return max(nearest - clock.monotonic(), 0.0)

    async def _promote(self, queue: str) -> None:
        while True:
            promoted = await self._shelves.promote(queue, CHUNK)
            if promoted.count < CHUNK:
                break
        self._due_at.pop(queue, None)
        if promoted.next_in_s is not None:
            self.expect(queue, max(promoted.next_in_s, 0) + _LATEST_S)
