"""What PostgreSQL says of itself, for a start and for `penstock doctor`.

One connection, of its own: what it looks at may be just what keeps the pools from working. Raises
StoreUnavailable where it doesn't answer, each statement in its time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg

from penstock import clock
from penstock.domain.checkup_servers import (
    Backlog,
    Connections,
    Crew,
    Prepared,
    Slot,
    Table,
    Transaction,
)
from penstock.domain.errors import PenstockError
from penstock.domain.safety import PostgresState
from penstock.store import migrate, queries
from penstock.store.postgres import Limits, Record, connect_options, translated

_LETTERS_COUNTED = 100_000


class Unseen(PenstockError):
    """A look that can't be had: a right or a table is missing."""


class Session:
    """An open connection; each method is one look."""

    def __init__(self, con: "asyncpg.Connection[Record]") -> None:
        self._con = con
        self._sql = queries.load()

    async def state(self) -> PostgresState:
        return PostgresState(*await self._row("server_state"))

    async def room(self) -> tuple[Connections, bool, bool, str]:
        """The connections, whether autovacuum is on and ours is encrypted, our role."""
        most, reserved, now, vacuums, is_tls, role = await self._row("server_room")
        return Connections(most, reserved, now), vacuums, bool(is_tls), role

    async def transaction(self) -> Transaction:
        return Transaction(*await self._row("oldest_transaction"))

    async def prepared(self) -> Prepared:
        return Prepared(*await self._row("prepared_transactions"))

    async def slots(self) -> list[Slot]:
        return [Slot(*row) for row in await self._rows("replication_slots")]

    async def tables(self) -> tuple[list[Table], int]:
        """Our tables, and the age of the oldest row in transactions."""
        rows = await self._rows("table_sizes")
        return [Table(*row[:3]) for row in rows], max((row[3] for row in rows), default=0)

    async def rights_lacking(self) -> list[str]:
        return [row[0] for row in await self._rows("rights_lacking")]

    async def pending(self) -> list[str]:
        """The migrations that it lacks; MigrationError where it has others than we know."""
        with translated(unknown=False):
            return [one.name for one in await migrate.missing(self._con)]

    async def crew(self) -> Crew:
        return Crew(*await self._row("crew"))

    async def backlog(self) -> Backlog:
        ready, effects = await self._row("ready_backlog"), await self._row("effects_backlog")
        (letters,) = await self._row("open_letter_count", _LETTERS_COUNTED)
        return Backlog(ready[0], ready[1], effects[0], effects[1], letters)

    async def data_directory(self) -> str | None:
        rows = await self._rows("data_directory")
        return cast(str, rows[0][0]) if rows else None

    async def ahead_s(self) -> float:
        """How far its clock is ahead of this machine's, to half a round trip."""
        await self._row("server_time")  # the second time it is prepared, and so quick
        sent = clock.wall_s()
        (there_s,) = await self._row("server_time")
        return cast(float, there_s) - (sent + clock.wall_s()) / 2

    async def _rows(self, query: str, *args: object) -> list[Record]:
        with translated(unknown=False):
            try:
                return await self._con.fetch(self._sql[query], *args)
            except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
                raise Unseen(str(error)) from error

    async def _row(self, query: str, *args: object) -> Record:
        return (await self._rows(query, *args))[0]


@asynccontextmanager
async def session(dsn: str, limits: Limits) -> AsyncIterator[Session]:
    """A connection for looks. Raises StoreUnavailable, which `postgres.explain` knows to tell."""
    with translated(unknown=False):
        con = await asyncpg.connect(dsn, **connect_options(limits, {}))
    try:
        yield Session(con)
    finally:
        con.terminate()
