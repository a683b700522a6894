"""What readers see: a job in each place, its attempts, its logs, which of many are over."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.domain.attempt import CANCELLED, LOST
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import created_ms
from penstock.domain.job import OnLost, State
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.view import JobView
from tests.support import making
from tests.support.database import Database

ENDS = {
    State.SUCCEEDED: making.SUCCESS,
    State.DEAD: making.FINAL_FAILURE,
    State.CANCELLED: CANCELLED,
}


async def test_a_job_is_shown_as_it_was_submitted(db: Database) -> None:
    job = making.new_job(
        queue="mail",
        kind="send",
        priority=2,
        payload='{"to":["a","b"]}',
        delay_s=60.0,
        max_attempts=7,
        backoff=Backoff(Curve.FIXED, 1.5, 1.0, 9.0, Jitter.NONE),
        timeout_s=1.5,
        on_lost=OnLost.DEAD,
        tags=("x", "y"),
        traceparent="00-1-2-01",
        created_by="ada",
    )
    now = await db.submissions.store([job])
    assert await db.reads.job(job.id) == JobView(
        id=job.id,
        queue="mail",
        kind="send",
        state=State.SCHEDULED,
        priority=2,
        payload='{"to":["a","b"]}',
        result=None,
        error=None,
        attempt=0,
        failures=0,
        crashes=0,
        max_attempts=7,
        on_lost="dead",
        backoff=job.backoff,
        timeout_s=1.5,
        run_at=now + timedelta(seconds=60),
        created_at=datetime.fromtimestamp(created_ms(job.id) / 1000, UTC),
        started_at=None,
        finished_at=None,
        reason=None,
        worker=None,
        tags=("x", "y"),
        traceparent="00-1-2-01",
        created_by="ada",
    )


async def test_a_job_that_nobody_submitted_is_not_shown(db: Database) -> None:
    id_ = making.job_id()
    assert await db.reads.job(id_) is None
    assert await db.reads.attempts(id_) == []
    assert await db.reads.logs(id_) == []


async def test_a_running_job_is_shown_with_its_worker(db: Database) -> None:
    (run,) = await db.running()
    view = await db.reads.job(run.id)
    assert view is not None
    assert (view.state, view.attempt, view.worker) == (State.RUNNING, 1, run.worker)
    assert (view.started_at, view.finished_at) == (run.started_at, None)


@pytest.mark.parametrize("state", ENDS)
async def test_a_job_that_is_over_is_shown_with_how_it_ended(db: Database, state: State) -> None:
    (run,) = await db.running()
    await db.settle(run, ENDS[state])
    view = await db.reads.job(run.id)
    assert view is not None
    assert (view.state, view.attempt, view.worker) == (state, 1, run.worker)
    assert view.finished_at is not None
    assert view.started_at == run.started_at <= view.finished_at
    assert view.result == ('{"answer":42}' if state is State.SUCCEEDED else None)
    assert (view.error is not None) == (state is State.DEAD)
    assert view.reason == {"dead": "failed-for-good", "cancelled": "requested"}.get(state)


async def test_a_job_that_waits_for_its_next_attempt_shows_the_last_ones_error(
    db: Database,
) -> None:
    (run,) = await db.running(
        backoff=Backoff(Curve.FIXED, 60.0, 1.0, 60.0, Jitter.NONE), max_attempts=3
    )
    await db.settle(run, making.FAILURE)
    view = await db.reads.job(run.id)
    assert view is not None
    assert (view.state, view.attempt, view.failures) == (State.SCHEDULED, 1, 1)
    assert view.error == '{"type":"oops"}'
    assert view.run_at > run.started_at + timedelta(seconds=59)
    assert (view.worker, view.started_at) == (run.worker, run.started_at)


async def test_a_success_after_failures_shows_no_error(db: Database) -> None:
    worker, (id_,) = await db.worker(), await db.submit()
    for ending in (making.FAILURE, making.SUCCESS):
        (run,) = await db.jobs.start([id_], worker)
        await db.settle(run, ending)
    view = await db.reads.job(id_)
    assert view is not None
    assert (view.state, view.error, view.failures) == (State.SUCCEEDED, None, 1)


async def test_attempts_are_shown_in_order_with_the_one_under_way(db: Database) -> None:
    worker, (id_,) = await db.worker(), await db.submit()
    for ending in (making.FAILURE, LOST):
        (run,) = await db.jobs.start([id_], worker)
        await db.settle(run, ending)
    (run,) = await db.jobs.start([id_], worker)
    first, second, third = await db.reads.attempts(id_)
    assert [a.attempt for a in (first, second, third)] == [1, 2, 3]
    assert [a.outcome for a in (first, second, third)] == ["failed", "lost", None]
    assert first.next_run_at is not None
    assert second.next_run_at is not None
    assert (third.finished_at, third.started_at, third.worker) == (None, run.started_at, worker)


async def test_who_waits_hears_which_jobs_are_over(db: Database) -> None:
    done, cancelled, running = await db.running(3)
    await db.settle(done, making.SUCCESS)
    await db.settle(cancelled, CANCELLED)
    (due,) = await db.submit()
    ids = [done.id, cancelled.id, running.id, due, making.job_id()]
    assert set(await db.reads.ended_among(ids)) == {done.id, cancelled.id}
    assert await db.reads.ended_among([]) == []


@pytest.mark.parametrize(
    "read",
    [
        lambda db: db.reads.job(making.job_id()),
        lambda db: db.reads.queues(),
        lambda db: db.reads.ended_among([making.job_id()]),
    ],
)
async def test_readers_are_refused_at_once_while_postgres_is_down(db: Database, read: Any) -> None:
    db.health.down = "it is"
    with pytest.raises(StoreUnavailable):
        await read(db)


async def test_the_last_figures_of_all_replicas_are_not_told_while_postgres_is_down(
    db: Database,
) -> None:
    await db.reads.cluster()
    db.health.down = "it is"
    with pytest.raises(StoreUnavailable):
        await db.reads.cluster()


async def test_who_counts_when_postgres_goes_down_does_not_keep_the_others_from_counting(
    db: Database,
) -> None:
    await db.queues.add(["default"])
    counting = asyncio.create_task(db.reads.queues())
    await asyncio.sleep(0)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    async with asyncio.timeout(5):
        assert len(await db.reads.queues()) == 1
