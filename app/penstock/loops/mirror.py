"""The blocked shelves are made to look like job_blocked, a page a step.

Nothing relies on them: an id that is lost there is put in line all the same when its parents are
over, one that stays misleads only who looks. But what was blocked, unlocked or ended while Redis
was away, or told in another order than it happened, would make them differ for ever. So one replica
walks round, on the reconciler's rounds: rows that wait for parents get on their shelf, and ids that
don't wait leave it.
"""

from penstock.domain.ids import BYTES
from penstock.loops.parts import Parts
from penstock.store.line import LAST_ID, BlockedKey

_PAGE = 1000
_START: BlockedKey = ("", "", bytes(BYTES))


class Mirror:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._after = _START
        self._queue = ""  # whose shelf is walked, from its nth member on
        self._nth = 0

    async def step(self) -> None:
        """One page of job_blocked, and one of a shelf."""
        page, self._after = await self._parts.line.blocked_page(self._after, LAST_ID, _PAGE)
        await self._parts.shelves.enqueue((), blocked=page)
        if len(page) < _PAGE:
            self._after = _START
        await self._take_away()

    async def _take_away(self) -> None:
        shelves, queue = self._parts.shelves, self._queue
        found = await shelves.blocked(queue, self._nth, _PAGE) if queue else []
        waiting = await self._parts.line.blocked_among([one for one in found if len(one) == BYTES])
        strangers = [one for one in found if one not in waiting]
        if strangers:
            await shelves.unblock(queue, strangers)
        self._nth += len(found) - len(strangers)
        if len(found) < _PAGE:
            self._nth = 0
            self._queue = self._next_queue()

    def _next_queue(self) -> str:
        """After the last one comes none, then the first again."""
        return min((name for name in self._parts.book.names() if name > self._queue), default="")
