"""Migrations: forward only, whole files, in turns; what doesn't go together stops the start."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from penstock import places
from penstock.domain.errors import BadRow, StoreUnavailable
from penstock.store import migrate
from penstock.store.migrate import Migration, MigrationError, files, pending
from tests.support.ports import free_port
from tests.support.servers import Servers

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NAMES = [one.name for one in files(places.migrations_dir())]


@pytest.fixture
async def empty(servers: Servers) -> str:
    """The DSN of a database in which nothing is."""
    return await servers.empty_database()


@pytest.fixture
async def session(empty: str) -> AsyncIterator[Session]:
    con = await asyncpg.connect(empty)
    yield con
    await con.close()


async def test_what_is_missing_is_applied_once(empty: str, session: Session) -> None:
    assert await pending(empty) == NAMES
    assert await migrate.migrate(empty) == NAMES
    assert await migrate.migrate(empty) == await pending(empty) == []
    rows = await session.fetch("SELECT version, name FROM schema_migrations ORDER BY version")
    assert [tuple(row) for row in rows] == list(enumerate(NAMES, start=1))
    assert await session.fetchval("SELECT count(*) FROM pulse") == 1


async def test_replicas_that_boot_together_take_turns(empty: str) -> None:
    boots = [migrate.migrate(empty) for _ in range(5)]
    looks = [pending(empty) for _ in range(5)]
    answers = await asyncio.gather(*boots, *looks)
    assert sorted(answers[:5]) == [*([[]] * 4), NAMES]
    assert all(look in ([], NAMES) for look in answers[5:])


async def test_a_look_at_a_fresh_database_changes_nothing_in_it(
    empty: str, session: Session
) -> None:
    answers = await asyncio.gather(*(pending(empty) for _ in range(8)))
    assert answers == [NAMES] * 8
    assert await session.fetchval("SELECT to_regclass('schema_migrations')") is None


async def test_who_comes_second_waits_for_the_first(empty: str, session: Session) -> None:
    await session.execute("SELECT pg_advisory_lock($1)", migrate._LOCK)
    waiting = asyncio.create_task(migrate.migrate(empty))
    async with asyncio.timeout(5):
        while not await session.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
        ):
            continue
    assert not waiting.done()
    await session.execute("SELECT pg_advisory_unlock($1)", migrate._LOCK)
    assert await waiting == NAMES


async def test_a_file_that_changed_after_it_was_applied_stops_the_start(
    empty: str, session: Session
) -> None:
    await migrate.migrate(empty)
    await session.execute("UPDATE schema_migrations SET checksum = 'another' WHERE version = 1")
    for call in (migrate.migrate, pending):
        with pytest.raises(MigrationError, match=f"{NAMES[0]} was changed"):
            await call(empty)


async def test_a_newer_schema_says_which_code_may_run_on_it(
    empty: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version adds: this one runs on it. The one after takes away: it doesn't any more."""
    for name in NAMES:
        write(tmp_path, f"{name}.sql", (places.migrations_dir() / f"{name}.sql").read_text())
    adds, takes = len(NAMES) + 1, len(NAMES) + 2
    with monkeypatch.context() as next_version:
        next_version.setattr(places, "migrations_dir", lambda: tmp_path)
        write(tmp_path, f"{adds:04}_adds.sql", "-- what: adds\nCREATE TABLE added (a int);")
        await migrate.migrate(empty)
    assert await migrate.migrate(empty) == await pending(empty) == []

    with monkeypatch.context() as the_one_after:
        the_one_after.setattr(places, "migrations_dir", lambda: tmp_path)
        takes_away = f"-- what: takes away\n-- needs code of: {adds:04}\nDROP TABLE added;"
        write(tmp_path, f"{takes:04}_takes.sql", takes_away)
        await migrate.migrate(empty)
    for call in (migrate.migrate, pending):
        with pytest.raises(MigrationError, match=f"must know {adds}; .* start the newer version"):
            await call(empty)


async def test_a_schema_from_before_versions_said_so_learns_it(
    empty: str, session: Session
) -> None:
    await migrate.migrate(empty)
    await session.execute("ALTER TABLE schema_migrations DROP COLUMN needs")
    assert await pending(empty) == []
    assert await migrate.migrate(empty) == []
    assert await session.fetchval("SELECT max(needs) FROM schema_migrations") == 0


def test_a_file_says_what_it_does() -> None:
    sql = (
        "-- what:  adds a column\n--        to jobs.\n-- locks: none\n\n-- why: no head any more\n"
    )
    one = Migration(1, "0001_a", sql)
    assert one.head == {"what": "adds a column to jobs.", "locks": "none"}
    assert one.needs == 0
    for real in files(places.migrations_dir()):
        assert {"what", "why", "locks", "safe while old code runs"} <= real.head.keys(), real.name
        safe = real.head["safe while old code runs"]
        assert real.needs or safe.startswith(("yes", "as 0")), f"{real.name}: who may run on it?"


async def test_a_file_is_applied_whole_or_not_at_all(
    empty: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "migrations_dir", lambda: tmp_path)
    write(tmp_path, "0001_good.sql", "CREATE TABLE good (a int);")
    write(tmp_path, "0002_bad.sql", "CREATE TABLE bad (a int); INSERT INTO bad VALUES (1/0);")
    with pytest.raises(BadRow):
        await migrate.migrate(empty)
    assert await session.fetchval("SELECT to_regclass('good') IS NOT NULL")
    assert await session.fetchval("SELECT to_regclass('bad') IS NULL")
    write(tmp_path, "0002_bad.sql", "CREATE TABLE bad (a int);")
    assert await migrate.migrate(empty) == ["0002_bad"]


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ([], True),
        (["0001_a.sql", "0002_b.sql"], True),
        (["0001_a.sql", "0003_c.sql"], False),
        (["0002_b.sql"], False),
        (["0001_a.sql", "0001_b.sql"], False),
        (["0001_a.sql", "README.md", "2_b.sql"], True),
    ],
)
def test_files_are_numbered_without_a_gap(tmp_path: Path, names: list[str], good: bool) -> None:
    for name in names:
        write(tmp_path, name, "")
    if good:
        found = [one.name for one in files(tmp_path)]
        assert found == [Path(name).stem for name in names if name[:4].isdigit()]
    else:
        with pytest.raises(MigrationError, match="no gap"):
            files(tmp_path)


async def test_a_database_out_of_reach_is_said_so() -> None:
    with pytest.raises(StoreUnavailable):
        await migrate.migrate(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none")


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(sql)


@pytest.mark.parametrize("first", ["job_due", "job_running"])
async def test_the_count_of_crashes_comes_amid_starts_and_settlements_without_a_deadlock(
    empty: str,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    """A start locks job_due first, a settlement job_running."""
    for name in NAMES[:4]:
        (tmp_path / f"{name}.sql").write_text((places.migrations_dir() / f"{name}.sql").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(places, "migrations_dir", lambda: tmp_path)
        await migrate.migrate(empty)
    engine = await asyncpg.connect(empty)
    try:
        async with engine.transaction():
            await engine.execute(f"LOCK TABLE {first} IN ROW EXCLUSIVE MODE")
            migrating = asyncio.create_task(migrate.migrate(empty))
            async with asyncio.timeout(5):
                while not await session.fetchval(
                    "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                    " WHERE NOT granted AND datname = current_database()"
                ):
                    continue
            await engine.execute("LOCK TABLE job_due, job_running IN ROW EXCLUSIVE MODE")
        assert await migrating == NAMES[4:]
    finally:
        await engine.close()
