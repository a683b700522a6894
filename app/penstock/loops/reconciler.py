"""The reconciler: what is due in Postgres and on no shelf is put on one.

Each round looks at the first rows of every line (queue and kind) in claim order: a lost id rises
to the head of its line by itself, so nothing deeper need be looked at. A queue whose marker is
missing (a flush, a new queue, another Redis) is rebuilt page by page, first what is due, then the
mirror of what waits for parents, and marked after the last one. Nothing is ever taken away from a
line, so claims go on meanwhile. A flush during a rebuild takes the name with it that the rebuild
left there, so that it starts over. What is submitted after a rebuild has left its name is put in
line by those who took it, as always: a rebuild that went through it too would run after them for as
long as they are faster. If we die here, the marker is still missing and another replica starts
over.
"""

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock import chaos
from penstock.domain.ids import BYTES, least
from penstock.domain.job import Due
from penstock.loops.mirror import Mirror
from penstock.loops.missing import Missing
from penstock.loops.parts import Parts
from penstock.loops.turns import is_ours
from penstock.store.line import FIRST_PAGE, BlockedKey, PageKey, Round
from penstock.telemetry.logs import get_logger

_HEAD = 1000
_LINES = 200  # lines a round
_PAGE = 5000
_MANY = 100  # more missing than this: look again at once
_ROUND_S = 2.0
_LOCK_S = 10.0  # a rebuild whose replica died is taken over after so long
_ASTRAY_MS = 100  # clocks of replicas; an id that is wrong by more is left to the looks at heads

log = get_logger(__name__)


@dataclass(slots=True)
class _Rebuild:
    name: str
    until: bytes  # an id: larger ones were submitted after it began
    after: PageKey = FIRST_PAGE  # where the next page begins
    restored: int = 0
    blocked_after: BlockedKey | None = None  # the same of what waits for parents: comes second


@dataclass(frozen=True, slots=True)
class _Page:
    """Of a rebuild. `rows` are due, or wait for parents where there is a `blocked_after`."""

    rows: Sequence[Due]
    after: PageKey
    blocked_after: BlockedKey | None = None


class Reconciler:
    """`now_ms()`: Postgres' clock, by which ids are minted."""

    def __init__(self, parts: Parts, missing: Missing, now_ms: Callable[[], int]) -> None:
        self._parts = parts
        self._now_ms = now_ms
        self._missing = missing
        self._round = Round(parts.line, _LINES)
        self._mirror = Mirror(parts)
        self._rebuilds: dict[str, _Rebuild] = {}  # by queue

    async def step(self) -> float:
        """One look round, and one page of each rebuild."""
        reported = self._missing.take()
        try:
            many = await self._look_round(reported)
            for queue in list(self._rebuilds):
                await self._rebuild_page(queue)
        except BaseException:
            self._missing.report(reported)
            raise
        return 0.0 if many or self._rebuilds else _ROUND_S * random.uniform(0.75, 1.25)

    async def _look_round(self, reported: set[str]) -> bool:
        """Whether many were missing. One replica does the round, any may begin a rebuild."""
        lock, metrics = self._parts.shelves.lock, self._parts.metrics
        mine = await is_ours(lock, "reconcile", _ROUND_S / 2, metrics)
        lines = await self._round.next() if mine else {}
        for one in await self._parts.shelves.survey(sorted(lines.keys() | reported), ()):
            if not one.marked and one.queue not in self._rebuilds:
                await self._begin_rebuild(one.queue)
        missing = 0
        for queue, kinds in lines.items():
            for kind in kinds:  # each by itself: one that nobody serves would hide the others
                missing += await self._look_at_head(queue, kind)
                await chaos.point("between_heads")
        if mine:
            await self._mirror.step()
        return missing > _MANY

    async def _look_at_head(self, queue: str, kind: str) -> int:
        aging_ms = self._parts.book.aging_ms(queue)
        head = await self._parts.line.head(queue, [kind], _HEAD, aging_ms)
        missing = await self._parts.shelves.restore(queue, head)
        await self._tell(queue, missing)
        return missing

    async def _begin_rebuild(self, queue: str) -> None:
        """From the first page, unless another replica is at it."""
        if await self._parts.shelves.lock(f"rebuild:{queue}", _LOCK_S):
            name = secrets.token_hex(8)
            await self._parts.shelves.begin_rebuild(queue, name)
            self._rebuilds[queue] = _Rebuild(name, least(self._now_ms() + _ASTRAY_MS))

    async def _rebuild_page(self, queue: str) -> None:
        rebuild, shelves = self._rebuilds[queue], self._parts.shelves
        page = await self._next_page(queue, rebuild)
        if not await shelves.lock(f"rebuild:{queue}", _LOCK_S):
            del self._rebuilds[queue]  # ours took too long: another replica is at it
            return
        if page.rows and await shelves.goes_on(queue, rebuild.name):
            await self._restore(queue, rebuild, page)
            await chaos.point("between_pages")
            return
        del self._rebuilds[queue]
        if page.rows or not await shelves.mark(queue, rebuild.name):
            log.info("rebuild_starts_over", queue=queue, why="Redis was flushed meanwhile")
            await self._begin_rebuild(queue)
        elif rebuild.restored:
            log.info("queue_rebuilt", queue=queue, restored=rebuild.restored)

    async def _next_page(self, queue: str, rebuild: _Rebuild) -> _Page:
        """The next rows that are due; after the last of them, those that wait for parents."""
        line, blocked_after = self._parts.line, rebuild.blocked_after
        if blocked_after is None:
            due, after = await line.page(queue, rebuild.after, rebuild.until, _PAGE)
            if due:
                return _Page(due, after)
            blocked_after = (queue, "", bytes(BYTES))
        found, blocked_after = await line.blocked_page(blocked_after, rebuild.until, _PAGE)
        blocked = [one for one in found if one.queue == queue]
        return _Page(blocked, rebuild.after, blocked_after)

    async def _restore(self, queue: str, rebuild: _Rebuild, page: _Page) -> None:
        if page.blocked_after is None:
            found = await self._parts.shelves.restore(queue, page.rows)
            await self._tell(queue, found)
            rebuild.restored += found
        else:
            await self._parts.shelves.enqueue((), blocked=page.rows)
        rebuild.after, rebuild.blocked_after = page.after, page.blocked_after

    async def _tell(self, queue: str, missing: int) -> None:
        if missing:
            self._parts.metrics.reconciled.inc(missing)
            await self._parts.shelves.tell_ready(queue)
