"""Migrations: `migrations/NNNN_what.sql`, forward only, one transaction a file.

Old code goes on while they are applied, and may be started on what came of them: at first they only
add (expand), and take away (contract) once no running version asks for it. A file that takes away
says so in its head, `-- needs code of: NNNN`; code that doesn't know so many refuses that schema.
Replicas that boot together take turns by a polled advisory lock: a blocking one would deadlock
with CREATE INDEX CONCURRENTLY (libraries.md, trap 2). If we die here, the file that was under way
is rolled back as a whole and the next start applies it.
"""

import asyncio
import hashlib
import re
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
);
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS needs integer NOT NULL DEFAULT 0;
"""
_HEAD = re.compile(r"(?:--.*\n)*")
_NAMED = re.compile(r"^-- ([a-z ]+):  *(.*(?:\n--  .*)*)", re.MULTILINE)


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

    @property
    def head(self) -> dict[str, str]:
        """What the file says of itself by name: what, why, locks, safe while old code runs."""
        head = _HEAD.match(self.sql)
        named = _NAMED.findall(head[0]) if head else []
        return {name: " ".join(text.replace("\n--", " ").split()) for name, text in named}

    @property
    def needs(self) -> int:
        """How many migrations code must know to run on this schema; 0: any code may."""
        return int(self.head.get("needs code of", "0"))


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
    return [one.name for one in await plan(dsn)]


async def plan(dsn: str) -> list[Migration]:
    """What `migrate` would apply."""
    with translated(unknown=False):
        con = await asyncpg.connect(dsn, timeout=5)
        try:
            return await missing(con)
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
        await _demand_old_enough(con, max(applied), len(known))
    for one in known:
        if applied.get(one.version, one.checksum) != one.checksum:
            raise MigrationError(f"{one.name} was changed after it was applied; restore the file")
    return [one for one in known if one.version not in applied]


async def _demand_old_enough(
    con: "asyncpg.Connection[asyncpg.Record]", there: int, known: int
) -> None:
    """That code of `known` migrations may run on the newer schema."""
    needs = await con.fetchval("SELECT max(needs) FROM schema_migrations")
    if needs > known:
        raise MigrationError(
            f"the database has migration {there}, for which code must know {needs}; this version "
            f"of penstock knows {known}: start the newer version"
        )


async def _apply(con: "asyncpg.Connection[asyncpg.Record]", one: Migration) -> str:
    began = clock.monotonic()
    async with con.transaction():
        await con.execute("SET LOCAL lock_timeout = '2s'")
        await con.execute(one.sql)
        await con.execute(
            "INSERT INTO schema_migrations"
            " (version, name, checksum, duration_ms, app_version, needs)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            one.version,
            one.name,
            one.checksum,
            int((clock.monotonic() - began) * 1000),
            VERSION,
            one.needs,
        )
    return one.name
