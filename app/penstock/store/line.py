"""Who is next, as Postgres knows it: claims while Redis is away, head checks, rebuilds."""

from collections.abc import AsyncIterator, Sequence

from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.store import rows
from penstock.store.postgres import Postgres

_FIRST_KEY = ("", -1, rows.EPOCH, bytes(16))


class Line:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def kinds_by_queue(self) -> dict[str, list[str]]:
        """The queues that have due rows (now or later), and of which kinds."""
        found: dict[str, list[str]] = {}
        for row in await self._pg.rows("lines"):
            found.setdefault(row[0], []).append(row[1])
        return found

    async def head(
        self, queue: str, kinds: Sequence[str], limit: int, aging_ms: float
    ) -> list[Due]:
        """The first `limit` rows that are due now, in claim order."""
        found = await self._pg.rows("line_head", queue, kinds, limit, aging_ms)
        return [rows.due(row) for row in found]

    async def pages(self, queue: str, size: int) -> AsyncIterator[list[Due]]:
        """All due rows of a queue, now or later, in pages."""
        key: tuple[object, ...] = _FIRST_KEY
        while found := await self._pg.rows("line_page", queue, *key, size):
            yield [rows.due(row) for row in found]
            last = found[-1]
            key = (last[2], last[3], last[4], last[0])

    async def among(self, ids: Sequence[JobId]) -> list[Due]:
        """Which of these ids are due rows."""
        return [rows.due(row) for row in await self._pg.rows("due_among", ids)]
