"""Rows of the outbox as tests need them: effects that are pending or over, endpoints that fail."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from penstock.domain.ids import JobId
from penstock.store import postgres

_AT = datetime(2026, 11, 18, 11, 0, tzinfo=UTC)
HOOK = "https://example.com/secret"


class Outbox:
    """Each effect that it writes is a minute younger than the one before."""

    def __init__(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._session = session
        self._at = _AT

    async def pending(self, **columns: Any) -> bytes:
        """An effect that is due in an hour; its id."""
        values = self._values(columns)
        values.setdefault("due_at", values["at"] + timedelta(days=3650))
        return await self._insert("effects", values)

    async def over(self, outcome: str = "delivered", **columns: Any) -> bytes:
        """An effect that is over; its id."""
        values = {**self._values(columns), "outcome": outcome}
        values.setdefault("tries", 3)
        values.setdefault("finished_at", values["at"])
        return await self._insert("deliveries", values)

    async def fails(self, endpoint: str = HOOK, *, is_disabled: bool = False) -> None:
        values = {
            "endpoint": endpoint,
            "channel": "webhook",
            "failing_since": _AT,
            "failures": 7,
            "disabled_at": _AT if is_disabled else None,
            "error": "503",
        }
        await self._session.execute(*_insertion("endpoints", values))

    def _values(self, columns: dict[str, Any]) -> dict[str, Any]:
        self._at += timedelta(minutes=1)
        job: JobId | None = columns.get("job_id")
        return {
            "effect_id": uuid.uuid4().bytes,
            "channel": "webhook",
            "endpoint": HOOK,
            "dedupe": f"{job.hex() if job else '-'}:1",
            "event": "penstock.job.dead.v1",
            "attempt": 1,
            "state": "dead",
            "at": self._at,
            **columns,
        }

    async def _insert(self, table: str, values: dict[str, Any]) -> bytes:
        await self._session.execute(*_insertion(table, values))
        return bytes(values["effect_id"])


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Outbox]:
    """That of a database, over a connection of its own."""
    session = await asyncpg.connect(dsn)
    await postgres.prepare(session)
    try:
        yield Outbox(session)
    finally:
        await session.close()


def _insertion(table: str, values: dict[str, Any]) -> list[Any]:
    places = ", ".join(f"${n + 1}" for n in range(len(values)))
    return [f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", *values.values()]
