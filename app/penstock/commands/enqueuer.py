"""Puts committed jobs in line. Comes after the commit, answers nobody, may fail.

If we die between a commit and its enqueue, or Redis is away, the reconciler finds the job at the
head of Postgres' line.
"""

from collections.abc import Callable, Iterable, Sequence

from penstock.batcher import Batcher
from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.queue.shelves import Shelves

_ROWS_MAX = 4000

_Off = tuple[str, JobId]


class Enqueuer:
    """`on_ready(queues)` wakes this replica's worker and promoter; `on_missing(queues)` the
    reconciler, where shelves are not whole or could not be reached."""

    def __init__(
        self,
        shelves: Shelves,
        on_ready: Callable[[Iterable[str]], None],
        on_missing: Callable[[Iterable[str]], None],
    ) -> None:
        self._shelves = shelves
        self._on_ready = on_ready
        self._on_missing = on_missing
        self._batcher: Batcher[tuple[Due | None, _Off | None]] = Batcher(self._flush, _ROWS_MAX)
        self.run = self._batcher.run
        self.drained = self._batcher.drained

    def put(self, due: Iterable[Due], off: Iterable[_Off] = ()) -> None:
        """`off`: (queue, id) to take off the leases shelf first."""
        self._batcher.put([*((None, one) for one in off), *((one, None) for one in due)])

    async def _flush(self, batch: Sequence[tuple[Due | None, _Off | None]]) -> None:
        due = [one for one, _ in batch if one]
        off = [one for _, one in batch if one]
        queues = {one.queue for one in due}
        try:
            unmarked = await self._shelves.enqueue(due, off)
        except QueueUnavailable:
            self._on_missing(queues)
        else:
            if unmarked:
                self._on_missing(unmarked)
        if queues:
            self._on_ready(queues)
