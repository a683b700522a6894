"""The door to PostgreSQL: what its errors become, and that no failed call costs a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from penstock.domain.errors import BadRow, StoreUnavailable
from penstock.domain.ids import JobId
from penstock.store.postgres import Limits, Postgres
from tests.support.database import Database, until_somebody_waits_for_a_lock
from tests.support.ports import free_port

FEW = Limits(connect_timeout_s=0.3, command_timeout_s=0.5, engine_connections=2)


@pytest.fixture
async def door(db: Database) -> AsyncIterator[Postgres]:
    """A door with two connections and little patience."""
    one = Postgres(db.dsn, FEW)
    await one.open()
    yield one
    one.close()


@asynccontextmanager
async def holding_a_job(db: Database) -> AsyncIterator[bytes]:
    """A due job that another session has locked: a cancel of it waits."""
    (id_,) = await db.submit()
    async with db.session.transaction():
        await db.session.execute("SELECT FROM job_due WHERE job_id = $1 FOR UPDATE", id_)
        yield id_


async def serves(door: Postgres) -> None:
    """All of its connections work, and more calls than it has connections are answered."""
    answers = await asyncio.gather(*(door.rows("queue_settings") for _ in range(5)))
    assert answers == [[]] * 5


async def test_a_statement_that_takes_too_long_is_given_up_and_did_nothing(
    db: Database, door: Postgres
) -> None:
    async with holding_a_job(db) as id_:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await door.rows("cancel_due", id_)
        await serves(door)
    assert await db.places([JobId(id_)]) == ["ready"]


async def test_who_finds_no_free_connection_is_told_that_nothing_was_sent(
    db: Database, door: Postgres
) -> None:
    async with holding_a_job(db) as id_:
        waiting = [asyncio.create_task(door.rows("cancel_due", id_)) for _ in range(2)]
        await until_somebody_waits_for_a_lock(db)
        with pytest.raises(StoreUnavailable) as caught:
            await door.rows("queue_settings")
        assert not caught.value.unknown
        await asyncio.wait(waiting)
        assert [type(task.exception()) for task in waiting] == [StoreUnavailable] * 2
    await serves(door)


async def test_a_connection_that_breaks_under_a_statement_leaves_its_outcome_unknown(
    db: Database, door: Postgres
) -> None:
    async with holding_a_job(db) as id_:
        waiting = asyncio.create_task(door.rows("cancel_due", id_))
        await until_somebody_waits_for_a_lock(db)
        await db.session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(StoreUnavailable) as caught:
            await waiting
        assert caught.value.unknown
    await serves(door)


async def test_connections_that_died_while_idle_are_replaced(db: Database, door: Postgres) -> None:
    await serves(door)
    await db.session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name = 'penstock'"
    )
    for _ in range(3):  # each may find one that it believes to be alive
        with_luck = await asyncio.gather(
            *(door.rows("queue_settings") for _ in range(2)), return_exceptions=True
        )
        assert all(answer == [] or isinstance(answer, StoreUnavailable) for answer in with_luck)
    await serves(door)


async def test_a_call_that_is_cancelled_gives_its_connection_back(
    db: Database, door: Postgres
) -> None:
    async with holding_a_job(db) as id_:
        for _ in range(4):
            waiting = asyncio.create_task(door.rows("cancel_due", id_))
            await until_somebody_waits_for_a_lock(db)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await serves(door)
    await serves(door)


async def test_a_server_that_refuses_is_out_of_reach_and_nothing_was_sent() -> None:
    door = Postgres(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none", FEW)
    with pytest.raises(StoreUnavailable) as caught:
        await door.open()
    assert not caught.value.unknown


async def test_a_read_only_server_can_not_serve_us_for_now(db: Database) -> None:
    """A standby that was just demoted: another try may reach the new primary."""
    await db.session.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
        " current_database()); END $$"
    )
    door = Postgres(db.dsn, FEW)
    await door.open()
    with pytest.raises(StoreUnavailable) as caught:
        await door.rows("add_queues", ["q"], 9)
    door.close()
    await db.session.execute("SET default_transaction_read_only = off")
    await db.session.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only',"
        " current_database()); END $$"
    )
    assert not caught.value.unknown


@pytest.mark.parametrize(
    "name", ["nul\x00", "\ud800", "closed \ud800"], ids=["NUL", "surrogate", "closed"]
)
async def test_a_value_that_postgres_can_not_hold_is_the_callers_fault(
    door: Postgres, name: str
) -> None:
    with pytest.raises(BadRow):
        await door.rows("add_queues", [name], 9)
    await serves(door)


@pytest.mark.parametrize("args", [(), ("q", True, 1), ("q", object())])
async def test_a_wrong_call_is_a_bug_and_nobody_tries_it_again(
    door: Postgres, args: tuple[object, ...]
) -> None:
    with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, BadRow)):
        await door.rows("set_paused", *args)
    await serves(door)


async def test_several_calls_in_one_transaction_stand_or_fall_together(
    db: Database, door: Postgres
) -> None:
    async def add(first: str, second: str) -> None:
        async with door.transaction(
            before="before_commit_large", after="after_commit_large"
        ) as transaction:
            await transaction.rows("add_queues", [first], 9)
            await transaction.many("add_queues", [([second], 9)])

    with pytest.raises(BadRow):
        await add("a", "b\x00")
    assert await db.queues.settings() == {}
    await add("a", "b")
    assert list(await db.queues.settings()) == ["a", "b"]


async def test_the_engine_runs_with_the_settings_that_its_statements_were_tried_with(
    door: Postgres,
) -> None:
    async def setting(name: str) -> str:
        async with door._connection(door._engine) as con:
            return str(await con.fetchval(f"SHOW {name}"))

    assert await setting("statement_timeout") == "500ms"
    assert await setting("lock_timeout") == "2s"
    assert await setting("enable_seqscan") == await setting("enable_nestloop") == "off"
    assert await setting("synchronous_commit") == "on"  # A18
