"""Who lives: beats, the pulse rule, condemning, orphans (design.md, Leases; reliability.md, D3)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock.domain.attempt import LOST
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import WorkerId
from penstock.store.postgres import Limits
from penstock.store.workers import Identity, KeeperLine
from tests.support import making
from tests.support.database import TTL_S, Database, until_somebody_waits_for_a_lock

A_WHOLE_LIFE = TTL_S + 1
HALF = TTL_S / 2


@pytest.fixture
async def line(db: Database) -> AsyncIterator[KeeperLine]:
    one = KeeperLine(db.dsn, Limits())
    yield one
    one.close()


async def silent(db: Database, worker: WorkerId, for_s: float) -> None:
    """Its last beat was sent so long ago."""
    await db.session.execute(
        "UPDATE workers SET expires_at = clock_timestamp() + make_interval(secs => $2)"
        " WHERE worker_id = $1",
        worker,
        TTL_S - for_s,
    )


async def pulse(db: Database, last_beat_s: float, unbroken_s: float) -> None:
    """When anybody beat last, and since when beats have come without a gap: seconds ago."""
    await db.session.execute(
        "UPDATE pulse SET last_beat = clock_timestamp() - make_interval(secs => $1),"
        " unbroken_since = clock_timestamp() - make_interval(secs => $2)",
        last_beat_s,
        unbroken_s,
    )


@pytest.mark.parametrize(
    ("silent_s", "last_beat_s", "unbroken_s", "condemned"),
    [
        (A_WHOLE_LIFE, 0.0, A_WHOLE_LIFE, True),
        (A_WHOLE_LIFE, HALF - 1, A_WHOLE_LIFE, True),
        (HALF, 0.0, A_WHOLE_LIFE, False),  # it isn't silent for long enough
        (TTL_S - 1, 0.0, A_WHOLE_LIFE, False),
        (A_WHOLE_LIFE, HALF + 1, A_WHOLE_LIFE, False),  # nobody has reached Postgres lately
        (A_WHOLE_LIFE, 0.0, TTL_S - 1, False),  # Postgres was out of reach not long ago
        (A_WHOLE_LIFE * 9, 0.0, 0.0, False),
    ],
)
async def test_only_the_silent_are_condemned_and_only_while_others_reach_postgres(
    db: Database, silent_s: float, last_beat_s: float, unbroken_s: float, condemned: bool
) -> None:
    worker, other = await db.worker(), await db.worker()
    await silent(db, worker, silent_s)
    await pulse(db, last_beat_s, unbroken_s)
    assert await db.workers.condemn(TTL_S) == ([worker] if condemned else [])
    assert await db.workers.condemn(TTL_S) == []
    rows = await db.session.fetch("SELECT worker_id FROM workers WHERE condemned_at IS NULL")
    alive = {row[0] for row in rows}
    assert alive == ({other} if condemned else {worker, other})


async def test_reapers_that_condemn_at_once_condemn_each_worker_once(db: Database) -> None:
    workers = [await db.worker() for _ in range(10)]
    for worker in workers:
        await silent(db, worker, A_WHOLE_LIFE)
    await pulse(db, 0, A_WHOLE_LIFE)
    answers = await asyncio.gather(*(db.workers.condemn(TTL_S) for _ in range(4)))
    assert sorted(w for answer in answers for w in answer) == sorted(workers)


@pytest.mark.parametrize(
    ("gap_s", "stays_unbroken"), [(0.0, True), (HALF - 1, True), (HALF + 1, False), (60, False)]
)
@pytest.mark.parametrize("by", ["beat", "registration"])
async def test_a_gap_in_all_beats_breaks_the_pulse(
    db: Database, line: KeeperLine, gap_s: float, stays_unbroken: bool, by: str
) -> None:
    worker = await db.worker()
    await pulse(db, gap_s, 600)
    if by == "beat":
        await line.beat(worker, TTL_S)
    else:
        await db.worker()
    row = await db.session.fetchrow(
        "SELECT clock_timestamp() - last_beat < interval '5 s',"
        " clock_timestamp() - unbroken_since > interval '5 min' FROM pulse"
    )
    assert row is not None
    assert tuple(row) == (True, stays_unbroken)


async def test_after_an_outage_nobody_is_condemned_for_a_whole_time_to_live(
    db: Database, line: KeeperLine
) -> None:
    """Postgres was paused: every name has expired, and the first beat after it breaks the pulse."""
    workers = [await db.worker() for _ in range(3)]
    for worker in workers:
        await silent(db, worker, 30)
    await pulse(db, 30, 600)
    assert await db.workers.condemn(TTL_S) == []
    assert (await line.beat(workers[0], TTL_S)).alive
    assert await db.workers.condemn(TTL_S) == []
    await db.session.execute("UPDATE pulse SET unbroken_since = unbroken_since - interval '11 s'")
    assert set(await db.workers.condemn(TTL_S)) == set(workers[1:])


async def test_a_beat_renews_the_worker_and_tells_postgres_time(
    db: Database, line: KeeperLine
) -> None:
    worker = await db.worker()
    await silent(db, worker, A_WHOLE_LIFE)
    beat = await line.beat(worker, TTL_S)
    now_s = await db.session.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert beat.alive
    assert 0 <= now_s - beat.now_s < 5
    await pulse(db, 0, A_WHOLE_LIFE)
    assert await db.workers.condemn(TTL_S) == []


@pytest.mark.parametrize("why", ["condemned", "gone"])
async def test_a_beat_of_one_who_is_no_more_is_told_so_and_revives_nothing(
    db: Database, line: KeeperLine, why: str
) -> None:
    worker = await db.worker()
    if why == "condemned":
        await silent(db, worker, A_WHOLE_LIFE)
        await pulse(db, 0, A_WHOLE_LIFE)
        await db.workers.condemn(TTL_S)
    else:
        await db.workers.leave(worker)
    assert not (await line.beat(worker, TTL_S)).alive
    rows = await db.session.fetch("SELECT FROM workers WHERE condemned_at IS NULL")
    assert rows == []


async def test_the_keepers_line_connects_anew_after_its_connection_was_lost(
    db: Database, line: KeeperLine
) -> None:
    worker = await db.worker()
    await line.beat(worker, TTL_S)
    await db.session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE '%cancel_requested_at IS NOT NULL%' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(StoreUnavailable):
        await line.beat(worker, TTL_S)
    assert (await line.beat(worker, TTL_S)).alive


async def test_orphans_are_what_stands_under_names_that_are_condemned_or_gone(
    db: Database,
) -> None:
    living, condemned, gone, idle = [await db.worker() for _ in range(4)]
    for worker in (living, condemned, gone):
        await db.running(2, worker=worker)
    await db.session.execute(
        "UPDATE workers SET condemned_at = now() WHERE worker_id = ANY($1)", [condemned, idle]
    )
    await db.workers.leave(gone)
    assert set(await db.workers.orphaning()) == {condemned, gone}


async def test_a_start_that_was_under_way_when_its_worker_was_condemned_is_an_orphan(
    db: Database,
) -> None:
    """Start saw its worker alive, the condemnation committed first: the reaper still finds it."""
    worker, (other,) = await db.worker(), await db.running()
    (id_,) = await db.submit()
    await silent(db, worker, A_WHOLE_LIFE)
    await pulse(db, 0, A_WHOLE_LIFE)
    blocker = db.session.transaction()
    await blocker.start()  # holds the place that start is about to take
    await db.session.execute(
        "INSERT INTO job_running SELECT $1, attempt, worker_id, queue, kind, priority, ready_at,"
        " failures, losses, started_at FROM job_running WHERE job_id = $2",
        id_,
        other.id,
    )
    starting = asyncio.create_task(db.jobs.start([id_], worker))
    await until_somebody_waits_for_a_lock(db)
    assert await db.workers.condemn(TTL_S) == [worker]
    await blocker.rollback()
    (run,) = await starting
    assert await db.workers.orphaning() == [worker]
    assert await db.settle(run, LOST)
    assert await db.workers.orphaning() == []


async def test_a_name_is_forgotten_a_minute_after_nothing_stands_under_it(db: Database) -> None:
    fresh, old, holding, living = [await db.worker() for _ in range(4)]
    (run,) = await db.running(worker=holding)
    await db.session.execute("UPDATE workers SET condemned_at = now() WHERE worker_id = $1", fresh)
    await db.session.execute(
        "UPDATE workers SET condemned_at = now() - interval '61 s' WHERE worker_id = ANY($1)",
        [old, holding],
    )
    await db.workers.forget_condemned()
    assert await names(db) == {fresh, holding, living}
    await db.settle(run, LOST)
    await db.workers.forget_condemned()
    assert await names(db) == {fresh, living}


async def test_a_worker_that_leaves_is_gone_at_once(db: Database) -> None:
    worker = await db.worker()
    await db.workers.leave(worker)
    await db.workers.leave(worker)
    assert await names(db) == set()


async def test_a_worker_enters_what_it_is(db: Database) -> None:
    worker = making.worker_id()
    who = Identity("a-host", 42, "1.2.3", ("mail-*", "x"), ("send", "echo"), 7)
    await db.workers.register(worker, who, TTL_S)
    row = await db.session.fetchrow("SELECT * FROM workers")
    assert row is not None
    assert (row["host"], row["pid"], row["version"], row["slots"]) == ("a-host", 42, "1.2.3", 7)
    assert (row["queues"], row["kinds"]) == (["mail-*", "x"], ["send", "echo"])
    assert (row["expires_at"] - row["beat_at"]).total_seconds() == TTL_S
    assert row["started_at"] == row["beat_at"]


async def names(db: Database) -> set[bytes]:
    return {row[0] for row in await db.session.fetch("SELECT worker_id FROM workers")}
