"""The reaper: condemns the silent, and settles what stands under dead names as lost."""

from collections.abc import Sequence

import pytest

from penstock.domain.attempt import LOST
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import OnLost, Started
from penstock.loops import reaper
from tests.support.still import Still

SILENT = "UPDATE workers SET expires_at = clock_timestamp() - interval '1 s' WHERE worker_id = $1"
LONG_IN_TOUCH = """
UPDATE pulse SET last_beat = clock_timestamp(),
                 unbroken_since = clock_timestamp() - interval '1 hour'
"""
LOST_BEFORE = "UPDATE job_running SET losses = 19 WHERE job_id = $1"


async def in_touch(still: Still) -> None:
    await still.db.session.execute(LONG_IN_TOUCH)


async def run_elsewhere(
    still: Still, count: int = 1, **fields: object
) -> tuple[WorkerId, list[Started]]:
    """Attempts of another replica, leased by it."""
    worker = await still.db.worker()
    ids = await still.submit(count, **fields)
    await still.redis.shelves.claim("default", ["echo"], count, 10.0)
    return worker, await still.db.jobs.start(ids, worker)


async def silence(still: Still, worker: WorkerId) -> None:
    await still.db.session.execute(SILENT, worker)


async def condemned(still: Still) -> list[bytes]:
    rows = await still.db.session.fetch(
        "SELECT worker_id FROM workers WHERE condemned_at IS NOT NULL"
    )
    return [row[0] for row in rows]


async def reap(still: Still) -> None:
    """Two steps: the second forgets what the first has emptied."""
    for _ in range(2):
        await still.engine.reaper.step()
    await still.engine.enqueuer.drained()


def ids_of(jobs: Sequence[Started]) -> list[JobId]:
    return [job.id for job in jobs]


async def test_what_a_silent_worker_ran_is_lost_and_in_line_again(still: Still) -> None:
    worker, jobs = await run_elsewhere(still, 3)
    await in_touch(still)
    await silence(still, worker)
    await reap(still)
    assert await condemned(still) == [worker]
    assert await still.ready() == ids_of(jobs), "in their old places"
    assert await still.leases() == set()
    for job in jobs:
        assert await still.outcomes(job.id) == ["lost"]
        row = await still.db.row("job_due", job.id)
        assert (row["failures"], row["losses"], row["ready_at"]) == (0, 1, job.ready_at)
    assert still.metric("reaped_total") == 3


async def test_the_living_are_left_alone(still: Still) -> None:
    _, theirs = await run_elsewhere(still, 2)
    ours = await still.start(2)
    await in_touch(still)
    pause = await still.engine.reaper.step()
    assert 0.7 <= pause <= 1.3
    assert await condemned(still) == []
    assert await still.db.places(ids_of([*theirs, *ours])) == ["running"] * 4


@pytest.mark.parametrize(
    "pulse",
    [
        "last_beat = clock_timestamp(), unbroken_since = clock_timestamp() - interval '9 s'",
        "last_beat = clock_timestamp() - interval '6 s', unbroken_since = '2026-01-01'",
    ],
    ids=["in touch for too short a time", "out of touch"],
)
async def test_after_a_pause_of_postgres_nobody_is_condemned(still: Still, pulse: str) -> None:
    """All were silent then, for nobody could say a word."""
    worker, jobs = await run_elsewhere(still)
    await still.db.session.execute(f"UPDATE pulse SET {pulse}")
    await silence(still, worker)
    await reap(still)
    assert await condemned(still) == []
    assert await still.db.places(ids_of(jobs)) == ["running"]


async def test_what_stands_under_a_vanished_name_is_lost_too(still: Still) -> None:
    worker, jobs = await run_elsewhere(still)
    await still.db.workers.leave(worker)
    await reap(still)
    assert await still.ready() == ids_of(jobs)


async def test_what_may_not_run_twice_is_dead(still: Still) -> None:
    worker, (job,) = await run_elsewhere(still, on_lost=OnLost.DEAD)
    await still.db.workers.leave(worker)
    await reap(still)
    row = await still.db.row("job_ended", job.id)
    assert (row["state"], row["reason"], row["losses"]) == ("dead", "lost", 1)
    assert await still.outcomes(job.id) == ["lost"]
    assert await still.shelves() == {}


async def test_what_was_lost_too_often_is_dead(still: Still) -> None:
    """It may be what kills its workers."""
    worker, (often, seldom) = await run_elsewhere(still, 2)
    await still.db.session.execute(LOST_BEFORE, often.id)
    await still.db.workers.leave(worker)
    await reap(still)
    row = await still.db.row("job_ended", often.id)
    assert (row["state"], row["reason"], row["losses"]) == ("dead", "lost", 20)
    assert await still.ready() == [seldom.id]


async def test_what_was_to_be_cancelled_is_not_run_again(still: Still) -> None:
    worker, (job,) = await run_elsewhere(still)
    await still.db.jobs.cancel_running(job.id)
    await still.db.workers.leave(worker)
    await reap(still)
    assert await still.db.places([job.id]) == ["cancelled"]
    assert await still.outcomes(job.id) == ["lost"]


async def test_a_large_estate_is_settled_in_steps(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "_ROWS_MAX", 4)
    worker, jobs = await run_elsewhere(still, 10)
    await still.db.workers.leave(worker)
    for left in (6, 2, 0):
        pause = await still.engine.reaper.step()
        assert await still.db.count("job_running") == left
        assert (pause == 0.0) == (left > 0)
    assert await still.db.places(ids_of(jobs)) == ["ready"] * 10


async def test_two_reapers_settle_each_row_once(still: Still) -> None:
    worker, (job,) = await run_elsewhere(still)
    await still.db.workers.leave(worker)
    await still.db.settle(job, LOST)  # the other one's
    await reap(still)
    assert await still.outcomes(job.id) == ["lost"]
    assert (await still.db.row("job_due", job.id))["losses"] == 1


async def test_the_condemned_are_forgotten_when_nothing_of_theirs_is_left(still: Still) -> None:
    worker, jobs = await run_elsewhere(still)
    await still.db.session.execute(
        "UPDATE workers SET condemned_at = clock_timestamp() - interval '2 minutes'"
        " WHERE worker_id = $1",
        worker,
    )
    await still.engine.reaper.step()
    assert worker in await condemned(still), "its rows were settled in this step"
    await reap(still)
    assert await condemned(still) == []
    assert await still.db.places(ids_of(jobs)) == ["ready"]
