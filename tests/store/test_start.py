"""start_jobs: due -> running, only what is due, for a worker that isn't condemned; and left_due,
running_of, due_among, which answer for the ids that start did not move."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from penstock.domain.attempt import LOST, RELEASED
from penstock.domain.ids import JobId, WorkerId
from tests.support import making
from tests.support.database import Database


async def test_a_started_job_stands_under_its_workers_name_and_nowhere_else(db: Database) -> None:
    worker = await db.worker()
    ids = await db.submit(3)
    started = await db.jobs.start(ids[::-1], worker)
    assert [job.id for job in started] == ids[::-1]  # as they were asked for: claim order
    assert await db.count("job_due") == 0
    for job in started:
        row = await db.row("job_running", job.id)
        assert (row["attempt"], row["worker_id"]) == (job.attempt, job.worker) == (1, worker)
        assert row["started_at"] == job.started_at >= job.ready_at
        assert row["ready_at"] == job.ready_at
        assert row["cancel_requested_at"] is None


async def test_start_leaves_what_it_must_not_move_and_says_why(db: Database) -> None:
    worker = await db.worker()
    (ready,) = await db.submit()
    (early,) = await db.submit(delay_s=60.0)
    (paused,) = await db.submit(queue="paused")
    await db.queues.set_paused("paused", paused=True)
    (gone,) = await db.submit()
    await db.jobs.cancel_due(gone)
    never = making.job_id()
    ids = [early, paused, gone, never, ready]
    assert [job.id for job in await db.jobs.start(ids, worker)] == [ready]
    left = {one.due.id: one for one in await db.jobs.left(ids)}
    assert left.keys() == {early, paused}
    assert (left[early].paused, left[paused].paused) == (False, True)
    assert left[early].due.kind == "echo"
    assert {one.id for one in await db.line.among(ids)} == {early, paused}
    assert await db.places(ids) == ["scheduled", "ready", "cancelled", None, "running"]


async def test_a_resumed_queue_starts_again(db: Database) -> None:
    worker, ids = await db.worker(), await db.submit(queue="q")
    await db.queues.set_paused("q", paused=True)
    assert await db.jobs.start(ids, worker) == []
    await db.queues.set_paused("q", paused=False)
    assert len(await db.jobs.start(ids, worker)) == 1


async def test_a_job_starts_to_the_microsecond_not_before_its_time(db: Database) -> None:
    worker = await db.worker()
    (id_,) = await db.submit(delay_s=0.05)
    async with asyncio.timeout(5):
        while not (started := await db.jobs.start([id_], worker)):
            continue
    assert timedelta(0) <= started[0].started_at - started[0].ready_at < timedelta(seconds=5)


@pytest.mark.parametrize("who", ["condemned", "never registered", "gone"])
async def test_a_worker_that_is_not_alive_starts_nothing(db: Database, who: str) -> None:
    worker, ids = await db.worker(), await db.submit()
    if who == "condemned":
        await db.session.execute("UPDATE workers SET condemned_at = clock_timestamp()")
    elif who == "gone":
        await db.workers.leave(worker)
    else:
        worker = making.worker_id()
    assert await db.jobs.start(ids, worker) == []
    assert await db.places(ids) == ["ready"]


async def test_start_passes_over_rows_that_another_session_holds(
    db: Database,
) -> None:
    worker, ids = await db.worker(), await db.submit(3)
    async with db.session.transaction():
        await db.session.execute("SELECT FROM job_due WHERE job_id = $1 FOR UPDATE", ids[1])
        async with asyncio.timeout(1):
            started = await db.jobs.start(ids, worker)
            left = await db.jobs.left(ids)
    assert [job.id for job in started] == [ids[0], ids[2]]
    assert [(one.due.id, one.paused) for one in left] == [(ids[1], False)]


async def test_two_workers_never_start_the_same_attempt(db: Database) -> None:
    first, second = await db.worker(), await db.worker()
    for _ in range(5):
        ids = await db.submit(200)
        answers = await asyncio.gather(
            db.jobs.start(ids, first), db.jobs.start(ids[::-1], second), db.jobs.start(ids, first)
        )
        started = [job.id for answer in answers for job in answer]
        assert len(started) == len(set(started))
        rest = await db.jobs.start(ids, first)
        assert {*started, *(job.id for job in rest)} == set(ids)


async def test_a_start_that_came_too_late_for_a_cancel_moves_nothing(db: Database) -> None:
    """The cancel has deleted the row but not committed: start must not wait for it either."""
    worker, (id_,) = await db.worker(), await db.submit()
    async with db.session.transaction():
        await db.session.execute("DELETE FROM job_due WHERE job_id = $1", id_)
        async with asyncio.timeout(1):
            assert await db.jobs.start([id_], worker) == []
    assert await db.jobs.start([id_], worker) == []


async def test_every_start_counts_the_attempt_up(db: Database) -> None:
    worker, (id_,) = await db.worker(), await db.submit(max_attempts=9)
    endings = [making.FAILURE, RELEASED, LOST, making.TIMEOUT]
    for n, ending in enumerate(endings, start=1):
        (run,) = await db.jobs.start([id_], worker)
        assert run.attempt == n
        assert await db.settle(run, ending)
    (run,) = await db.jobs.start([id_], worker)
    assert (run.attempt, run.failures, run.losses) == (5, 2, 1)


async def test_a_crash_counts_apart_and_is_carried_along(db: Database) -> None:
    worker, (id_,) = await db.worker(), await db.submit()
    for crashes in (0, 1):
        (run,) = await db.jobs.start([id_], worker)
        assert (run.failures, run.losses, run.crashes) == (0, 0, crashes)
        await db.settle(run, making.CRASH)
        await db.session.execute("UPDATE job_due SET ready_at = clock_timestamp()")
    (run,) = await db.jobs.start([id_], worker)
    (found, _), *_ = await db.jobs.running_of([worker], 10, with_payload=True)
    assert found == run
    await db.settle(run, making.CRASH)
    view = await db.reads.job(id_)
    assert view is not None
    assert (view.state, view.reason, view.failures, view.crashes) == ("dead", "poison", 0, 3)
    outcomes = [attempt.outcome for attempt in await db.reads.attempts(id_)]
    assert outcomes == ["crashed"] * 3


async def test_an_old_replica_that_knows_of_no_crashes_can_go_on(db: Database) -> None:
    """It names its columns, and `crashes` isn't among them (migration 0005)."""
    worker = await db.worker()
    (run,) = await db.running(worker=worker)
    await db.session.execute(
        """WITH r AS (DELETE FROM job_running RETURNING *)
        INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at,
                                 failures, losses, started_at, unique_id)
        SELECT job_id, attempt, worker_id, queue, kind, priority, ready_at, failures, losses,
               started_at, unique_id FROM r"""
    )
    ((found, _),) = await db.jobs.running_of([worker], 10, with_payload=True)
    assert found == run


async def test_a_replica_finds_what_stands_under_its_name(db: Database) -> None:
    mine = await db.running(3)
    await db.running(2)
    worker = WorkerId(mine[0].worker)
    await db.jobs.cancel_running(mine[1].id)
    rows = {
        job.id: (job, stop)
        for job, stop in await db.jobs.running_of([worker], 10, with_payload=True)
    }
    assert rows == {job.id: (job, job is mine[1]) for job in mine}  # as start answered
    assert len(await db.jobs.running_of([worker], 2, with_payload=True)) == 2
    assert await db.jobs.running_of([making.worker_id()], 10, with_payload=True) == []


async def test_who_only_settles_gets_no_payloads(db: Database) -> None:
    (run,) = await db.running(payload='{"large":1}')
    ((found, _),) = await db.jobs.running_of([WorkerId(run.worker)], 10, with_payload=False)
    assert found == replace(run, payload="null")


async def test_what_a_replica_knows_hides_nothing_that_it_does_not(db: Database) -> None:
    first, second, third = await db.running(3)
    worker = WorkerId(first.worker)
    found = await db.jobs.running_of(
        [worker], 1, with_payload=True, but=[first.id, third.id, making.job_id()]
    )
    assert [job.id for job, _ in found] == [second.id]


async def test_what_began_first_is_found_first(db: Database) -> None:
    worker = await db.worker()
    runs = [(await db.running(worker=worker))[0] for _ in range(5)]
    found = await db.jobs.running_of([worker], 3, with_payload=True)
    assert [job.id for job, _ in found] == [run.id for run in runs[:3]]


async def test_start_does_not_begin_what_is_locked_for_a_settlement(db: Database) -> None:
    """Settling locks job_running only; a start of others goes on meanwhile."""
    (run,) = await db.running()
    (other,) = await db.submit()
    async with db.session.transaction():
        await db.session.execute("SELECT FROM job_running WHERE job_id = $1 FOR UPDATE", run.id)
        async with asyncio.timeout(1):
            assert len(await db.jobs.start([other], WorkerId(run.worker))) == 1


async def test_a_start_waits_for_no_lock_on_queues(db: Database) -> None:
    worker, ids = await db.worker(), await db.submit(queue="q")
    await db.queues.add(["q"])
    async with db.session.transaction():
        await db.session.execute("UPDATE queues SET paused = true")
        async with asyncio.timeout(1):
            assert len(await db.jobs.start(ids, worker)) == 1  # the pause isn't committed yet


async def test_a_row_of_running_cannot_be_there_twice(db: Database) -> None:
    (run,) = await db.running()
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.session.execute("INSERT INTO job_running SELECT * FROM job_running")
    assert await db.places([JobId(run.id)]) == ["running"]
