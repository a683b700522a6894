"""cancel_due, cancel_running, cancel_requested, retry_ended, state_of."""

import asyncio

import pytest

from penstock.domain.attempt import CANCELLED, LOST, Ending
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import Due
from penstock.store.postgres import Limits
from penstock.store.rows import ms
from penstock.store.workers import KeeperLine
from tests.support import making
from tests.support.database import TTL_S, Database

PLACES = ["ready", "scheduled", "running", "succeeded", "dead", "cancelled"]


async def standing(db: Database, place: str) -> JobId:
    """A job that stands there after one attempt, or none where there can't be one."""
    if place in ("ready", "scheduled"):
        (id_,) = await db.submit(delay_s=60.0 if place == "scheduled" else None)
        return id_
    (run,) = await db.running()
    ends = {"succeeded": making.SUCCESS, "dead": making.FINAL_FAILURE, "cancelled": CANCELLED}
    if place in ends:
        await db.settle(run, ends[place])
    return run.id


@pytest.mark.parametrize("place", PLACES)
async def test_a_waiting_job_is_cancelled_and_no_other(db: Database, place: str) -> None:
    id_ = await standing(db, place)
    due = await db.jobs.cancel_due(id_)
    if place not in ("ready", "scheduled"):
        assert due is None
        assert await db.places([id_]) == [place]
        return
    assert due == Due(id_, "default", "echo", 5, 0)
    assert await db.places([id_]) == ["cancelled"]
    assert await db.count("job_due") == 0
    row = await db.row("job_ended", id_)
    assert (row["attempt"], row["failures"], row["reason"]) == (0, 0, "requested")
    assert await db.jobs.cancel_due(id_) is None


@pytest.mark.parametrize("place", PLACES)
async def test_the_worker_of_a_running_job_is_asked_and_no_other(db: Database, place: str) -> None:
    id_ = await standing(db, place)
    worker = await db.jobs.cancel_running(id_)
    assert await db.places([id_]) == [place]
    if place != "running":
        assert worker is None
        return
    row = await db.row("job_running", id_)
    assert worker == row["worker_id"]
    first = row["cancel_requested_at"]
    await db.jobs.cancel_running(id_)
    row = await db.row("job_running", id_)
    assert row["cancel_requested_at"] == first, "the first request's time was lost"


async def test_a_job_that_failed_before_is_cancelled_with_what_it_has_spent(db: Database) -> None:
    (run,) = await db.running()
    await db.settle(run, making.FAILURE)
    await db.jobs.cancel_due(run.id)
    row = await db.row("job_ended", run.id)
    assert (row["attempt"], row["failures"], row["state"]) == (1, 1, "cancelled")


async def test_a_cancel_and_a_start_at_once_leave_the_job_in_one_place(db: Database) -> None:
    worker = await db.worker()
    ids = await db.submit(50)
    cancels, started = await asyncio.gather(
        asyncio.gather(*(db.jobs.cancel_due(id_) for id_ in ids)), db.jobs.start(ids, worker)
    )
    cancelled = {due.id for due in cancels if due}
    running = {job.id for job in started}
    assert not cancelled & running
    places = dict(zip(ids, await db.places(ids), strict=True))
    for id_, place in places.items():
        expected = "running" if id_ in running else "cancelled" if id_ in cancelled else "ready"
        assert place == expected


async def test_a_beat_brings_the_cancels_of_its_own_worker(db: Database) -> None:
    mine, other = await db.running(2)
    (foreign,) = await db.running()
    for run in (mine, foreign):
        await db.jobs.cancel_running(run.id)
    line = KeeperLine(db.dsn, Limits())
    beat = await line.beat(WorkerId(mine.worker), TTL_S)
    line.close()
    assert beat.alive
    assert list(beat.cancel) == [mine.id]
    assert other.id not in beat.cancel


@pytest.mark.parametrize("place", PLACES)
async def test_what_ended_without_success_gets_a_second_life_and_no_other(
    db: Database, place: str
) -> None:
    id_ = await standing(db, place)
    due = await db.retry(id_)
    if place not in ("dead", "cancelled"):
        assert due is None
        assert await db.places([id_]) == [place]
        return
    assert due is not None
    row = await db.row("job_due", id_)
    assert due == Due(id_, "default", "echo", 5, ms(row["ready_at"]))
    assert (row["attempt"], row["failures"], row["losses"]) == (1, 0, 0)
    assert await db.places([id_]) == ["ready"]
    assert await db.count("job_ended") == 0
    assert await db.retry(id_) is None


@pytest.mark.parametrize(
    "before",
    [[making.FAILURE, LOST, making.FINAL_FAILURE], [LOST, CANCELLED]],
    ids=["dead", "cancelled"],
)
async def test_a_second_life_goes_on_with_the_attempts_and_has_a_fresh_budget(
    db: Database, before: list[Ending]
) -> None:
    worker, (id_,) = await db.worker(), await db.submit(max_attempts=2, priority=7)
    for ending in before:
        (run,) = await db.jobs.start([id_], worker)
        await db.settle(run, ending)
    await db.retry(id_)
    n = len(before)
    for failures in (0, 1):
        (run,) = await db.jobs.start([id_], worker)
        assert (run.attempt, run.failures) == (n + 1 + failures, failures)
        assert (run.losses, run.crashes) == (0, 0)
        assert run.priority == 7
        await db.settle(run, making.FAILURE)
    assert await db.places([id_]) == ["dead"]
    numbers = [attempt.attempt for attempt in await db.reads.attempts(id_)]
    assert numbers == list(range(1, n + 3))


async def test_two_retries_at_once_make_one_second_life(db: Database) -> None:
    id_ = await standing(db, "dead")
    answers = await asyncio.gather(*(db.retry(id_) for _ in range(4)))
    assert len([due for due in answers if due]) == 1
    assert await db.count("job_due") == 1


async def test_a_late_settlement_of_the_first_life_does_not_touch_the_second(
    db: Database,
) -> None:
    (run,) = await db.running(max_attempts=1)
    await db.settle(run, making.FAILURE)
    await db.retry(run.id)
    assert not await db.settle(run, making.SUCCESS)
    (again,) = await db.jobs.start([run.id], WorkerId(run.worker))
    assert not await db.settle(run, making.SUCCESS)
    assert await db.settle(again, making.FAILURE)
    assert await db.places([run.id]) == ["dead"]


async def test_nobody_has_heard_of_a_job_that_was_never_submitted(db: Database) -> None:
    id_ = making.job_id()
    assert await db.jobs.standing_of(id_) is None
    assert await db.jobs.cancel_due(id_) is None
    assert await db.jobs.cancel_running(id_) is None
    assert await db.retry(id_) is None


@pytest.mark.parametrize("place", PLACES)
async def test_a_jobs_state_is_the_place_it_stands_in(db: Database, place: str) -> None:
    assert await db.places([await standing(db, place)]) == [place]
