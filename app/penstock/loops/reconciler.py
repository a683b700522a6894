"""The reconciler: what is due in Postgres and on no shelf is put on one.

Each round looks at the first rows of every line in claim order: a lost id rises to the head by
itself, so nothing deeper need be looked at. A queue whose marker is missing (a flush, a new
queue, another Redis) is rebuilt in pages and marked after the last one. Nothing is ever taken
away, so claims go on meanwhile. If we die here, the marker is still missing and the next round
starts over.
"""

import random

from penstock.loops.missing import Missing
from penstock.loops.parts import Parts
from penstock.telemetry.logs import get_logger

_HEAD = 1000
_PAGE = 5000
_MANY = 100  # more missing than this: look again at once
_ROUND_S = 2.0

log = get_logger(__name__)


class Reconciler:
    def __init__(self, parts: Parts, missing: Missing) -> None:
        self._parts = parts
        self._missing = missing

    async def step(self) -> float:
        reported = self._missing.take()
        try:
            return await self._round(reported)
        except BaseException:
            self._missing.report(reported)
            raise

    async def _round(self, reported: set[str]) -> float:
        mine = await self._parts.shelves.lock("reconcile", _ROUND_S / 2)
        if not mine and not reported:
            return self._pause_s()
        lines = await self._parts.line.kinds_by_queue()
        for one in await self._parts.shelves.survey(sorted(lines.keys() | reported), ()):
            if not one.marked:
                await self._rebuild(one.queue)
        missing = 0
        for queue, kinds in lines.items():
            missing += await self._look_at_head(queue, kinds)
        return 0.0 if missing > _MANY else self._pause_s()

    async def _look_at_head(self, queue: str, kinds: list[str]) -> int:
        aging_ms = self._parts.book.aging_ms(queue)
        head = await self._parts.line.head(queue, kinds, _HEAD, aging_ms)
        missing = await self._parts.shelves.restore(queue, head)
        await self._tell(queue, missing)
        return missing

    async def _rebuild(self, queue: str) -> None:
        count = 0
        async for page in self._parts.line.pages(queue, _PAGE):
            found = await self._parts.shelves.restore(queue, page)
            await self._tell(queue, found)
            count += found
        await self._parts.shelves.mark(queue)
        if count:
            log.info("queue_rebuilt", queue=queue, restored=count)

    async def _tell(self, queue: str, missing: int) -> None:
        if missing:
            self._parts.metrics.reconciled.inc(missing)
            await self._parts.shelves.tell_ready(queue)

    def _pause_s(self) -> float:
        return _ROUND_S * random.uniform(0.75, 1.25)
