"""Submit: all or nothing, once, and answered only when it is stored."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from penstock import clock
from penstock.domain.audit_log import Entry
from penstock.domain.errors import BadRow, Contended, StoreUnavailable, TooManyQueues
from penstock.domain.job import NewJob
from penstock.queue.shelves import member
from penstock.settings import Settings
from penstock.store.health import Health
from penstock.store.rows import ms
from tests.support import making
from tests.support.figures import crowded
from tests.support.making import SUCCESS
from tests.support.still import Q, Still, changed, standing
from tests.support.waiting import eventually
from tests.support.wire import Wire, commit

SLICE = 2000  # rows a statement


def bad_job() -> NewJob:
    return making.new_job(payload="{no json")


async def stored(still: Still) -> tuple[int, int]:
    """How many jobs, and how many of them are due."""
    return await still.db.count("jobs"), await still.db.count("job_due")


async def test_a_job_is_stored_and_in_line(still: Still) -> None:
    in_a_minute = datetime.now(UTC) + timedelta(minutes=1)
    now_ish = making.new_job(run_at=datetime(2020, 1, 1, tzinfo=UTC), priority=7)
    later, delayed = making.new_job(run_at=in_a_minute), making.new_job(delay_s=30.0)
    committed_at = await still.store([now_ish, later, delayed])
    await still.engine.enqueuer.drained()
    ready_at = {
        now_ish.id: committed_at,
        later.id: in_a_minute,
        delayed.id: committed_at + timedelta(seconds=30),
    }
    for id_, at in ready_at.items():
        assert (await still.db.row("job_due", id_))["ready_at"] == at
        assert (await still.db.row("jobs", id_))["run_at"] == at
    scheduled = {member(making.due(id=job.id)): ms(ready_at[job.id]) for job in (later, delayed)}
    assert await still.shelves() == {
        f"{Q}ready:echo": {now_ish.id: ms(committed_at) - 7 * 60_000},
        f"{Q}scheduled": scheduled,
    }
    assert still.metric("jobs_submitted_total", queue="default", source="api") == 3
    assert still.engine.worker.wake.is_set()
    assert await still.engine.promoter.step() < 6, (
        "nothing was told that a step would have to wait for"
    )


async def test_what_gathers_is_one_transaction(still: Still) -> None:
    await still.submit()
    submit, jobs = still.store, making.new_jobs(300)
    times = await asyncio.gather(*(submit([job]) for job in jobs))
    assert len(set(times)) <= 3, "the first ones, the others, and no more than that"
    assert still.metric("batch_rows_count", batch="submit") == 1 + len(set(times))
    assert await stored(still) == (301, 301)


async def test_one_that_is_refused_refuses_no_other(still: Still) -> None:
    submit = still.store
    good = [making.new_jobs(3) for _ in range(6)]
    bad = [making.new_job(), bad_job(), making.new_job()]
    calls = [
        *(submit(jobs) for jobs in good[:3]),
        submit(bad),
        *(submit(jobs) for jobs in good[3:]),
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [datetime] * 3 + [BadRow] + [datetime] * 3
    assert await stored(still) == (18, 18), "and of the refused one nothing is stored"
    assert not any(await still.db.places([job.id for job in bad]))
    await still.engine.enqueuer.drained()
    assert set(await still.ready()) == {job.id for jobs in good for job in jobs}


async def test_what_was_stored_before_is_passed_over_with_its_place(still: Still) -> None:
    submit, jobs = still.store, making.new_jobs(4, kind="gated")
    await submit(jobs)
    ran, runs, cancelled, due = (job.id for job in jobs)
    first, _ = await still.db.jobs.start([ran, runs], await still.db.worker())
    await still.db.settle(first, SUCCESS)
    await still.db.jobs.cancel_due(cancelled)
    before = await still.db.row("job_due", due)
    await submit([*(replace(job, payload='"another"') for job in jobs), making.new_job()])
    ids = [ran, runs, cancelled, due]
    assert await still.db.places(ids) == ["succeeded", "running", "cancelled", "ready"]
    assert await still.db.row("job_due", due) == before
    assert (await still.db.row("jobs", due))["payload"] == "null"
    assert await stored(still) == (5, 2)


async def test_a_large_submission_is_one_transaction(still: Still) -> None:
    jobs = making.new_jobs(2 * SLICE + 500)
    await still.store(jobs)
    transactions = "SELECT count(DISTINCT xmin::text), count(*) FROM {}"
    for table in ("jobs", "job_due"):
        (row,) = await still.db.session.fetch(transactions.format(table))
        assert tuple(row) == (1, len(jobs))
    await still.engine.enqueuer.drained()
    assert await still.ready() == [job.id for job in jobs]


async def test_a_large_submission_is_all_or_nothing(still: Still) -> None:
    jobs = [*making.new_jobs(2 * SLICE), bad_job()]
    with pytest.raises(BadRow):
        await still.store(jobs)
    assert await stored(still) == (0, 0)
    await still.engine.enqueuer.drained()
    assert await still.shelves() == {}


async def test_a_large_submission_holds_nobody_up(still: Still) -> None:
    submit = still.store
    large = asyncio.create_task(submit(making.new_jobs(5 * SLICE)))
    await asyncio.sleep(0.05)
    while not large.done():
        began = clock.monotonic()
        await submit([making.new_job()])
        assert clock.monotonic() - began < 1
    await large


async def test_new_queues_are_entered_and_their_number_has_a_limit(
    still_settings: Settings, dsn: str, redis_url: str
) -> None:
    two = changed(still_settings, queue={"count_max": 2})
    async with standing(two, dsn, redis_url) as still:
        await still.submit(queue="one")
        await still.submit(queue="two")
        with pytest.raises(TooManyQueues):
            await still.submit(queue="three")
        await still.submit(queue="one")
        assert (await still.db.queues.settings()).keys() == {"one", "two"}
        assert await stored(still) == (3, 3)


async def test_a_caller_that_hung_up_spoils_nothing(still: Still) -> None:
    submit = still.store
    gone = asyncio.create_task(submit(making.new_jobs(3)))
    stays = asyncio.create_task(submit([making.new_job()]))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await stored(still))[0] in (1, 4), "with its jobs or without them, but not with some"


# Answers that are lost.


@pytest.mark.parametrize("count", [3, SLICE + 3])
async def test_a_commit_whose_answer_is_lost_is_sent_again_and_stored_once(
    wired: Still, postgres_wire: Wire, count: int
) -> None:
    await wired.submit()
    jobs = making.new_jobs(count)
    if count > SLICE:
        await wired.store(making.new_jobs(count))
        postgres_wire.lose_answer(commit)
    else:
        postgres_wire.lose_answer()
    before = await stored(wired)
    await wired.store(jobs)
    assert postgres_wire.lost.is_set()
    assert await stored(wired) == (before[0] + count, before[1] + count)
    await wired.engine.enqueuer.drained()
    assert {job.id for job in jobs} <= set(await wired.ready())


async def test_after_three_sendings_the_caller_hears_that_nobody_knows(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, submit = 0, still.engine.submissions.store

    async def unheard(jobs: list[NewJob], entries: list[Entry]) -> datetime:
        nonlocal calls
        calls += 1
        await submit(jobs, entries)
        raise StoreUnavailable("as asked", unknown=True)

    monkeypatch.setattr(still.engine.submissions, "store", unheard)
    with pytest.raises(StoreUnavailable) as caught:
        await still.submit(2)
    assert caught.value.unknown
    assert calls == 3
    assert await stored(still) == (2, 2)


@pytest.mark.parametrize(
    "fails", [StoreUnavailable("refused"), Contended("busy")], ids=["refused", "busy"]
)
@pytest.mark.parametrize("count", [2, SLICE + 2])
async def test_a_sending_that_fails_after_one_that_was_not_answered_says_that_nobody_knows(
    still: Still, monkeypatch: pytest.MonkeyPatch, fails: Exception, count: int
) -> None:
    """A crash of Postgres: the first is committed, its answer lost, the next finds nobody."""
    submit, errors = still.engine.submissions.store, [StoreUnavailable("lost", unknown=True)]

    async def unheard(jobs: list[NewJob], entries: list[Entry]) -> datetime:
        if errors:
            await submit(jobs, entries)
            raise errors.pop()
        raise fails

    monkeypatch.setattr(still.engine.submissions, "store", unheard)
    with pytest.raises(StoreUnavailable) as caught:
        await still.submit(count)
    assert caught.value.unknown
    assert await stored(still) == (count, count)


# Postgres goes down.


@pytest.fixture
async def watched(wired: Still) -> Still:
    """With its health looked at all the time, and a connection for submissions open."""
    await wired.submit()
    await wired.rooms.health.step()
    return wired


async def refused_within(seconds: float, call: Callable[[], Awaitable[object]]) -> StoreUnavailable:
    began = clock.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        async with asyncio.timeout(10):
            await call()
    assert clock.monotonic() - began < seconds
    return caught.value


async def look_after(health: Health) -> None:
    pause = 0.0
    while pause >= 0:
        await asyncio.sleep(pause)
        pause = await health.step()


@pytest.mark.parametrize("how", ["stops", "dies"])
@pytest.mark.parametrize("count", [2, SLICE + 2])
async def test_who_waits_when_postgres_goes_down_is_refused_within_a_second(
    watched: Still, postgres_wire: Wire, how: str, count: int
) -> None:
    looking = asyncio.create_task(look_after(watched.rooms.health))
    submit = watched.store
    if how == "stops":
        postgres_wire.hold()
    else:
        await postgres_wire.cut()
    error = await refused_within(crowded(1.2), lambda: submit(making.new_jobs(count)))
    await eventually_down(watched)
    assert error.unknown or how == "dies"
    refused = await refused_within(crowded(0.1), lambda: submit(making.new_jobs(1)))
    assert not refused.unknown, "nothing was sent"
    postgres_wire.release()
    await postgres_wire.mend()

    async def up() -> bool:
        return watched.rooms.health.down is None

    await eventually(up, "Postgres is found to be back", every_s=0.02)
    async with asyncio.timeout(8):
        await submit(making.new_jobs(1))
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking


async def eventually_down(still: Still) -> None:
    async def down() -> bool:
        return still.rooms.health.down is not None

    await eventually(down, "Postgres is found to be down", within_s=2, every_s=0.02)
