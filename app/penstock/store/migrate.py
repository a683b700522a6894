"""Migrations: `migrations/NNNN_what.sql`, forward only, one transaction a file.

Replicas that boot together take turns by a polled advisory lock: a blocking one would deadlock
with CREATE INDEX CONCURRENTLY (libraries.md, trap 2). If we die here, the file that was under way
is rolled back as a whole and the next start applies it.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from penstock import VERSION, clock, places
from penstock.domain.errors import PenstockError
from penstock.store.postgres import translated

_LOCK = 0x70656E73746F636B  # "penstock"
_LOCK_WAIT_S = 60.0
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms integer NOT NULL,
    app_version text NOT NULL
)
"""


class MigrationError(PenstockError):
    """The schema and the files don't go together."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str) -> list[str]:
    """Applies what is missing; answers the names of what was applied."""
    with translated(unknown=False):
        con = await asyncpg.connect(dsn, timeout=5)
        try:
            await _take_turn(con)
            await con.execute(_TABLE)
            return [await _apply(con, one) for one in await missing(con)]
        finally:
            await con.close(timeout=5)


async def pending(dsn: str) -> list[str]:
    """The names of what `migrate` would apply."""
    with translated(unknown=False):
        con = await asyncpg.connect(dsn, timeout=5)
        try:
            return [one.name for one in await missing(con)]
        finally:
            await con.close(timeout=5)


def files(folder: Path) -> list[Migration]:
    """The migrations of a folder in order; their numbers must be 1, 2, 3, …"""
    found = [
        Migration(int(path.name[:4]), path.stem, path.read_text())
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    if [one.version for one in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"{folder}: the migrations must be numbered 0001, 0002, … with no gap")
    return found


async def _take_turn(con: "asyncpg.Connection[asyncpg.Record]") -> None:
    give_up_at = clock.monotonic() + _LOCK_WAIT_S
    while not await con.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        if clock.monotonic() > give_up_at:
            raise MigrationError("another process has been migrating for a minute; try again")
        await asyncio.sleep(0.1)


async def missing(con: "asyncpg.Connection[asyncpg.Record]") -> list[Migration]:
    """Only looks: whoever asks what is pending has not taken a turn."""
    applied: dict[int, str] = {}
    if await con.fetchval("SELECT to_regclass('schema_migrations')") is not None:
        rows = await con.fetch("SELECT version, checksum FROM schema_migrations")
        applied = {row[0]: row[1] for row in rows}
    known = files(places.migrations_dir())
    if applied and max(applied) > len(known):
        raise MigrationError(
            f"the database has migration {max(applied)}, this version of penstock knows "
            f"{len(known)}: start the newer version"
        )
    for one in known:
        if applied.get(one.version, one.checksum) != one.checksum:
            raise MigrationError(f"{one.name} was changed after it was applied; restore the file")
    return [one for one in known if one.version not in applied]


async def _apply(con: "asyncpg.Connection[asyncpg.Record]", one: Migration) -> str:
    began = clock.monotonic()
    async with con.transaction():
        await con.execute("SET LOCAL lock_timeout = '2s'")
        await con.execute(one.sql)
        await con.execute(
            "INSERT INTO schema_migrations (version, name, checksum, duration_ms, app_version)"
            " VALUES ($1, $2, $3, $4, $5)",
            one.version,
            one.name,
            one.checksum,
            int((clock.monotonic() - began) * 1000),
            VERSION,
        )
    return one.name
