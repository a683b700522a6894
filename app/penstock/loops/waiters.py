"""Those who wait for a job's end (`Prefer: wait`).

This replica's settlements tell directly, other replicas' by one publish a batch, heard only while
somebody waits; one query a second for all waiters is the net. If we die, the callers lose their
connection and ask again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable

from penstock.domain.ids import JobId
from penstock.store.reads import Reads

_NET_S = 1.0


class Waiters:
    """`listen(True)` is called when the first comes, `listen(False)` when the last has gone."""

    def __init__(self, reads: Reads, listen: Callable[[bool], Awaitable[None]]) -> None:
        self._reads = reads
        self._listen = listen
        self._waiting: dict[JobId, set[asyncio.Event]] = defaultdict(set)
        self.wake = asyncio.Event()

    async def wait(self, id_: JobId, seconds: float) -> None:
        """Returns when the job may have ended, or when the time is up."""
        ended = asyncio.Event()
        first = not self._waiting
        self._waiting[id_].add(ended)
        try:
            if first:
                await self._listen(True)
            self.wake.set()  # it may have ended before we came
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            pass
        finally:
            self._forget(id_, ended)

    def tell(self, ids: Iterable[JobId]) -> None:
        """These jobs are over."""
        if not self._waiting:
            return
        for id_ in ids:
            for ended in self._waiting.get(id_, ()):
                ended.set()

    async def step(self) -> float:
        """The net: asks Postgres once for all who wait."""
        if not self._waiting:
            await self._listen(False)
            return 60.0
        self.tell(await self._reads.ended_among(list(self._waiting)))
        return _NET_S

    def _forget(self, id_: JobId, ended: asyncio.Event) -> None:
        others = self._waiting[id_]
        others.discard(ended)
        if not others:
            del self._waiting[id_]
