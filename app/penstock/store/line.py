"""Who is next, as Postgres knows it: claims while Redis is away, head checks, rebuilds."""

from collections.abc import Sequence
from datetime import datetime

from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.store import rows
from penstock.store.postgres import Postgres

PageKey = tuple[str, int, datetime, bytes]  # kind, priority, ready_at, id
BlockedKey = tuple[str, str, bytes]  # queue, kind, id
LAST_ID = b"\xff" * 16
FIRST_PAGE: PageKey = ("", -1, rows.EPOCH, bytes(16))


Pair = tuple[str, str]  # queue and kind: one line


class Round:
    """Walks round all lines, some at a time: callers may invent kinds without end."""

    def __init__(self, line: "Line", size: int) -> None:
        self._line = line
        self._size = size
        self._after: Pair = ("", "")

    async def next(self) -> dict[str, list[str]]:
        """The kinds by queue of the next lines; after the last come the first again."""
        found = await self._line.lines(self._after, self._size)
        if len(found) < self._size and self._after > ("", ""):
            found += await self._line.lines(("", ""), self._size - len(found))
        self._after = found[-1] if len(found) == self._size else ("", "")
        kinds: dict[str, list[str]] = {}
        for queue, kind in dict.fromkeys(found):
            kinds.setdefault(queue, []).append(kind)
        return kinds


class Line:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def lines(self, after: Pair, limit: int) -> list[Pair]:
        """The next (queue, kind) pairs that have due rows, now or later."""
        return [(row[0], row[1]) for row in await self._pg.rows("lines", *after, limit)]

    async def head(
        self, queue: str, kinds: Sequence[str], limit: int, aging_ms: float
    ) -> list[Due]:
        """The first `limit` rows that are due now, in claim order."""
        found = await self._pg.rows("line_head", queue, kinds, limit, aging_ms)
        return [rows.due(row) for row in found]

    async def page(
        self, queue: str, after: PageKey, until: bytes, size: int
    ) -> tuple[list[Due], PageKey]:
        """The next due rows of a queue, now or later, with ids below `until`; and where the page
        after them begins."""
        found = await self._pg.rows("line_page", queue, *after, until, size)
        last = found[-1] if found else None
        key = after if last is None else (last[2], last[3], last[4], last[0])
        return [rows.due(row) for row in found], key

    async def blocked_page(
        self, after: BlockedKey, until: bytes, size: int
    ) -> tuple[list[Due], BlockedKey]:
        """The next rows of all queues that wait for parents, with ids below `until`; and where the
        page after them begins. `ready_ms` is when they may run at the earliest."""
        found = await self._pg.rows("blocked_page", *after, until, size)
        key = (found[-1][1], found[-1][2], found[-1][0]) if found else after
        return [rows.due(row) for row in found], key

    async def blocked_among(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these ids wait for parents."""
        return {row[0] for row in await self._pg.rows("blocked_among", ids)}

    async def among(self, ids: Sequence[JobId]) -> list[Due]:
        """Which of these ids are due rows."""
        return [rows.due(row) for row in await self._pg.rows("due_among", ids)]
