"""Natural batching: what gathers while one batch is under way is the next batch.

No timer, so no latency is added when idle; under load a round trip serves hundreds. If we die
here, nobody was answered for what had not been flushed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Hands all that was put to `flush`, at most `rows_max` at a time, one batch after the other.

    `flush` must deal with its own failures: what it raises ends the process.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[None]],
        rows_max: int,
        rows_of: Callable[[T], int] = lambda _item: 1,
    ) -> None:
        self._flush = flush
        self._rows_max = rows_max
        self._rows_of = rows_of
        self.waiting: list[T] = []
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, items: Sequence[T]) -> None:
        if items:
            self.waiting.extend(items)
            self._filled.set()
            self._idle.clear()

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await self._filled.wait()
            batch = self._take()
            await self._flush(batch)
            if not self.waiting:
                self._idle.set()

    def _take(self) -> list[T]:
        """The oldest items, at most `rows_max` rows, but at least one item."""
        count = rows = 0
        for item in self.waiting:
            rows += self._rows_of(item)
            if count and rows > self._rows_max:
                break
            count += 1
        batch = self.waiting[:count]
        del self.waiting[:count]
        if not self.waiting:
            self._filled.clear()
        return batch

    async def drained(self) -> None:
        """Returns when all that was put has been flushed."""
        await self._idle.wait()
