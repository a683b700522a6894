"""Pruning: whole jobs go, when their time is over and not before, whoever else is at them."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from penstock.domain.attempt import CANCELLED, Ending
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.store import queries
from penstock.store.retention import Pruned, Retention
from penstock.store.rows import EPOCH
from tests.support import making
from tests.support.database import Database, until_somebody_waits_for_a_lock

HOUR_S = 3600.0
LONG_AGO = (
    "UPDATE job_ended SET finished_at = finished_at - interval '2 hours' WHERE job_id = ANY($1)"
)
# Rows of any table whose job is not there, and jobs that stand in no place or in several.
STRAYS = """
SELECT 'stray', p.job_id
FROM (SELECT job_id FROM job_due UNION ALL SELECT job_id FROM job_running
      UNION ALL SELECT job_id FROM job_ended UNION ALL SELECT job_id FROM attempts
      UNION ALL SELECT job_id FROM job_logs UNION ALL SELECT job_id FROM job_progress) p
LEFT JOIN jobs j USING (job_id) WHERE j.job_id IS NULL
UNION ALL
SELECT 'not in one place', j.job_id FROM jobs j
LEFT JOIN job_due d USING (job_id)
LEFT JOIN job_running r USING (job_id)
LEFT JOIN job_ended e USING (job_id)
WHERE num_nonnulls(d.job_id, r.job_id, e.job_id) <> 1
"""
COUNTS_THAT_ARE_WRONG = """
SELECT queue, state, e.n, c.n
FROM (SELECT queue, state, count(*) AS n FROM job_ended GROUP BY 1, 2) e
FULL JOIN (SELECT queue, state, sum(delta) AS n FROM queue_counts GROUP BY 1, 2) c
     USING (queue, state)
WHERE coalesce(e.n, 0) <> coalesce(c.n, 0)
"""
TOLD = ("jobs", "job_ended", "attempts", "job_logs", "job_progress")


@pytest.fixture
def retention(db: Database) -> Retention:
    return Retention(db.postgres)


async def ended(
    db: Database, count: int = 1, ending: Ending = making.FINAL_FAILURE, **fields: object
) -> list[JobId]:
    """Jobs that ended two hours ago, each with an attempt, a log line and progress."""
    runs = await db.running(count, **fields)
    await db.jobs.add_logs([(run.id, 1, 1, 1.0, "info", "a line") for run in runs])
    await db.jobs.add_progress([(run.id, 1, 50.0, None, 1.0) for run in runs])
    for run in runs:
        await db.settle(run, ending)
    ids = [run.id for run in runs]
    await db.session.execute(LONG_AGO, ids)
    return ids


async def prune(
    retention: Retention, state: State = State.DEAD, older_s: float = HOUR_S, rows: int = 1000
) -> int:
    return (await retention.prune_ended(state, older_s, EPOCH, rows)).count


async def assert_whole(db: Database) -> None:
    assert await db.session.fetch(STRAYS) == []
    assert await db.session.fetch(COUNTS_THAT_ARE_WRONG) == []


async def left(db: Database, ids: Sequence[JobId]) -> list[JobId]:
    return [id_ for id_ in ids if await db.reads.job(id_) is not None]


async def test_a_job_goes_with_all_that_belongs_to_it(db: Database, retention: Retention) -> None:
    ids = await ended(db, 3)
    assert [await db.count(table) for table in TOLD] == [3] * len(TOLD)
    assert await prune(retention) == 3
    assert [await db.count(table) for table in TOLD] == [0] * len(TOLD)
    assert await db.places(ids) == [None] * 3
    assert await db.reads.job(ids[0]) is None
    assert await db.reads.attempts(ids[0]) == []
    await assert_whole(db)


async def test_what_is_younger_or_of_another_state_stays(
    db: Database, retention: Retention
) -> None:
    old = await ended(db, 2)
    others = [
        *await ended(db, ending=making.SUCCESS),
        *await ended(db, ending=CANCELLED),
        *await db.submit(),
        *[run.id for run in await db.running()],
    ]
    assert await prune(retention, older_s=3 * HOUR_S) == 0
    assert await prune(retention) == 2
    assert await left(db, [*old, *others]) == others
    assert await prune(retention, State.SKIPPED) == 0
    await assert_whole(db)


async def test_the_oldest_go_first_and_so_many_at_once(db: Database, retention: Retention) -> None:
    ids = await ended(db, 5)
    for hours, id_ in enumerate(reversed(ids)):
        await db.session.execute(
            "UPDATE job_ended SET finished_at = now() - make_interval(hours => $2 + 2)"
            " WHERE job_id = $1",
            *(id_, hours),
        )
    first = await retention.prune_ended(State.DEAD, HOUR_S, EPOCH, 2)
    assert (first.count, await left(db, ids)) == (2, ids[2:])
    assert first.last is not None
    second = await retention.prune_ended(State.DEAD, HOUR_S, first.last, 2)
    assert (second.count, await left(db, ids)) == (2, ids[4:])
    assert second.last is not None
    assert await retention.prune_ended(State.DEAD, HOUR_S, second.last, 2) != Pruned(0, None)
    assert await retention.prune_ended(State.DEAD, HOUR_S, EPOCH, 2) == Pruned(0, None)


async def test_the_counts_lose_what_went_and_the_throughput_does_not(
    db: Database, retention: Retention
) -> None:
    await db.queues.add(["a", "b"])
    await ended(db, 4, queue="a")
    await ended(db, 2, queue="b")
    (run,) = await db.running(queue="a", max_attempts=1)
    await db.settle(run, making.FAILURE)
    assert await prune(retention) == 6
    found = {view.name: view for view in await db.reads.queues()}
    assert (found["a"].counts[State.DEAD], found["b"].counts[State.DEAD]) == (1, 0)
    assert found["a"].dead_per_s == pytest.approx(5 / 60), "what ended within the minute did end"
    await db.session.execute("UPDATE queue_counts SET at = at - interval '61 s'")
    await db.queues.fold_counts()
    await assert_whole(db)
    assert await db.count("queue_counts") == 2, "negative ones are folded as well"


async def test_a_job_in_its_second_life_stays(db: Database, retention: Retention) -> None:
    ids = await ended(db, 2)
    assert await db.retry(ids[0])
    assert await prune(retention) == 1
    assert await left(db, ids) == ids[:1]
    assert len(await db.reads.attempts(ids[0])) == 1
    await assert_whole(db)


async def test_a_retry_that_came_first_keeps_the_job(db: Database, retention: Retention) -> None:
    (id_,) = await ended(db)
    async with db.session.transaction():
        await db.session.fetch(queries.load()["retry_ended"], id_, 0.0)
        assert await prune(retention) == 0, "it waits for nobody"
    assert await prune(retention) == 0
    assert await db.places([id_]) == ["ready"]
    await assert_whole(db)


async def test_a_retry_that_comes_second_finds_no_such_job(
    db: Database, retention: Retention
) -> None:
    (id_,) = await ended(db)
    async with db.session.transaction():
        pruned = await db.session.fetch(queries.load()["prune_ended"], "dead", HOUR_S, EPOCH, 10)
        assert pruned[0][0] == 1
        assert await db.reads.job(id_) is not None, "until it is gone it is there as a whole"
        retrying = asyncio.create_task(db.retry(id_))
        await until_somebody_waits_for_a_lock(db)
    assert await retrying is None
    assert await db.places([id_]) == [None]
    await assert_whole(db)


async def test_a_step_that_is_rolled_back_leaves_all_as_it_was(
    db: Database, retention: Retention
) -> None:
    ids = await ended(db, 3)
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.fetch(queries.load()["prune_ended"], "dead", HOUR_S, EPOCH, 10)
    await transaction.rollback()
    assert await left(db, ids) == ids
    await assert_whole(db)
    assert await prune(retention) == 3


async def test_several_replicas_prune_at_once_and_each_job_once(
    db: Database, retention: Retention
) -> None:
    await ended(db, 60)
    counts: list[int] = []
    while sum(counts) < 60:
        counts += await asyncio.gather(*(prune(retention, rows=7) for _ in range(4)))
    assert sum(counts) == 60
    assert await db.count("jobs") == 0
    await assert_whole(db)


async def test_whoever_comes_at_the_same_time_finds_a_whole_job_or_none(
    db: Database, retention: Retention
) -> None:
    """Retries, cancels, stale settlements, late lines and readers beside two pruners."""
    rand = random.Random(3)
    for _ in range(8):
        runs = await db.running(12, max_attempts=1)
        for run in runs:
            await db.settle(run, making.FAILURE)
        await db.session.execute(LONG_AGO, [run.id for run in runs])
        calls = [
            *(prune(retention, rows=2) for _ in range(4)),
            *(db.retry(run.id) for run in runs[::2]),
            *(db.jobs.cancel_due(run.id) for run in runs[::3]),
            *(db.settle(run, making.SUCCESS) for run in runs[::4]),
            *(db.jobs.add_logs([(run.id, 1, 9, 1.0, "info", "late")]) for run in runs[::3]),
            *(db.jobs.add_progress([(run.id, 1, 9.0, None, 1.0)]) for run in runs[1::3]),
            *(db.reads.job(run.id) for run in runs),
        ]
        rand.shuffle(calls)
        await asyncio.gather(*calls)
        await assert_whole(db)
    assert 0 < await db.count("jobs") < 96, "both have won sometimes"


async def test_what_is_told_late_of_a_job_that_is_gone_is_dropped(
    db: Database, retention: Retention
) -> None:
    (gone,) = await ended(db)
    await prune(retention)
    (old,) = await ended(db)
    (run,) = await db.running()
    await db.settle(run, making.SUCCESS)
    for id_ in (gone, old, run.id):
        await db.jobs.add_logs([(id_, 1, 7, 1.0, "info", "late")])
        await db.jobs.add_progress([(id_, 1, 99.0, None, 2e9)])
    kept = "SELECT job_id FROM {} WHERE {}"
    late = await db.session.fetch(kept.format("job_logs", "message = 'late'"))
    assert [row[0] for row in late] == [run.id], "what has just ended takes its last lines"
    late = await db.session.fetch(kept.format("job_progress", "percent = 99"))
    assert [row[0] for row in late] == [run.id]
    await assert_whole(db)


async def test_stored_answers_go_when_they_are_old(db: Database, retention: Retention) -> None:
    await db.session.execute(
        "INSERT INTO idempotency_keys SELECT gen_random_uuid(), '',"
        " now() - n * interval '1 minute', '{}', '{}' FROM generate_series(1, 10) n"
    )
    assert await retention.prune_idempotency_keys(330.0, 3) == 3
    left = await db.session.fetchval("SELECT max(now() - stored_at) FROM idempotency_keys")
    assert 6.9 < left.total_seconds() / 60 < 7.1, "the oldest go first"
    pruned = await asyncio.gather(*(retention.prune_idempotency_keys(330.0, 3) for _ in range(3)))
    assert sum(pruned) == 2
    assert await retention.prune_idempotency_keys(330.0, 3) == 0
    assert await db.count("idempotency_keys") == 5
