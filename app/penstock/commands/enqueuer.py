"""Puts committed jobs in line. Comes after the commit, answers nobody, may fail.

If we die between a commit and its enqueue, or Redis is away, the reconciler finds the job at the
head of Postgres' line. What waits for parents is mirrored on a shelf of its own, which
`loops/mirror.py` sets right.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock.batcher import Batcher
from penstock.domain.errors import QueueUnavailable
from penstock.domain.job import Due
from penstock.queue.shelves import Off, Shelves

_ROWS_MAX = 4000
_WAITING_MAX = 100_000


@dataclass(frozen=True, slots=True)
class _Blocked:
    due: Due


@dataclass(frozen=True, slots=True)
class _Unlocked:
    due: Due


_Item = Due | Off | _Blocked | _Unlocked


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
        self._batcher: Batcher[_Item] = Batcher(self._flush, _ROWS_MAX)
        self.run = self._batcher.run
        self.drained = self._batcher.drained

    def put(self, due: Iterable[Due], off: Iterable[Off] = ()) -> None:
        """`off` leaves the leases shelf first. With too many waiting (Redis is slow), the queues
        are only reported: leases end, and the reconciler finds what is due."""
        if len(self._batcher) > _WAITING_MAX:
            self._on_missing({one.queue for one in due})
            return
        self._batcher.put([*off, *due])

    def block(self, due: Iterable[Due]) -> None:
        """What waits for parents goes on the blocked shelf, unless too many are waiting."""
        if len(self._batcher) <= _WAITING_MAX:
            self._batcher.put([_Blocked(one) for one in due])

    def unlock(self, due: Iterable[Due]) -> None:
        """What waited for parents moves from the blocked shelf to its line; as `put`."""
        if len(self._batcher) > _WAITING_MAX:
            self._on_missing({one.queue for one in due})
            return
        self._batcher.put([_Unlocked(one) for one in due])

    async def withdraw(self, ended: Sequence[Due]) -> None:
        """Takes jobs that ended while they waited, for parents or their turn, from their shelves;
        what stays costs a stale claim."""
        self.put((), [Off(one.queue, one.id, ended=True) for one in ended])
        with suppress(QueueUnavailable):
            await self._shelves.forget(ended)

    async def tell(self, channel: str, message: bytes) -> None:
        """Tells all replicas; those whom it doesn't reach find out by their slow looks."""
        with suppress(QueueUnavailable):
            await self._shelves.tell(channel, message)

    async def _flush(self, batch: Sequence[_Item]) -> None:
        """All of it in one round trip a queue: those who wait for a parent wait for this too."""
        blocked = [one.due for one in batch if isinstance(one, _Blocked)]
        unlocked = [one.due for one in batch if isinstance(one, _Unlocked)]
        due = [one for one in batch if isinstance(one, Due)]
        off = [one for one in batch if isinstance(one, Off)]
        queues = {one.queue for one in (*due, *unlocked)}
        try:
            unmarked = await self._shelves.enqueue(due, off, unlocked=unlocked, blocked=blocked)
        except QueueUnavailable:
            self._on_missing(queues)
        else:
            if unmarked:
                self._on_missing(unmarked)
        if queues:
            self._on_ready(queues)
