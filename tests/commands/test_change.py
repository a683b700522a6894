"""Cancel, retry, pause and resume: whatever state the job is in, and whoever is as quick."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio.client import PubSub

from penstock.domain.errors import Contended, JobNotFound, StoreUnavailable, WrongState
from penstock.domain.ids import JobId
from penstock.queue import keys
from tests.support import making
from tests.support.gates import let_go
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.still import Still
from tests.support.wire import Wire


async def scheduled(still: Still) -> JobId:
    (id_,) = await still.submit(delay_s=60)
    return id_


async def ready(still: Still) -> JobId:
    (id_,) = await still.submit()
    return id_


async def running(still: Still) -> JobId:
    (job,) = await still.start()
    return job.id


async def succeeded(still: Still) -> JobId:
    (job,) = await still.start()
    await still.settle((job, SUCCESS))
    return job.id


async def dead(still: Still) -> JobId:
    (job,) = await still.start()
    await still.settle((job, FINAL_FAILURE))
    return job.id


async def cancelled(still: Still) -> JobId:
    id_ = await ready(still)
    await still.engine.changes.cancel(id_)
    await still.engine.enqueuer.drained()
    return id_


Place = Callable[[Still], Awaitable[JobId]]


async def heard(line: PubSub) -> list[tuple[str, bytes]]:
    """What was published, in order."""
    found = []
    while message := await line.get_message(timeout=0.05):
        if message["type"] == "message":
            found.append((message["channel"].decode(), message["data"]))
    return found


# Cancel.


@pytest.mark.parametrize("place", [ready, scheduled])
async def test_what_waits_is_cancelled_at_once_and_leaves_the_line(
    still: Still, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await place(still)
    told: list[bytes] = []
    monkeypatch.setattr(still.engine.sequel, "on_ended", told.extend)
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.ENDED)
        await still.engine.changes.cancel(id_)
        await still.engine.enqueuer.drained()
        assert await heard(line) == [(keys.ENDED, id_)]
    assert told == [id_]
    row = await still.db.row("job_ended", id_)
    assert (row["state"], row["reason"], row["attempt"]) == ("cancelled", "requested", 0)
    assert still.metric("jobs_ended_total", queue="default", state="cancelled") == 1
    assert await still.shelves() == {}


async def test_what_runs_here_is_stopped(still: Still) -> None:
    (id_,) = await still.submit(kind="gated")
    await still.engine.worker.step()
    await still.engine.changes.cancel(id_)
    await still.in_places([id_], "cancelled")
    assert await still.outcomes(id_) == ["cancelled"]
    with pytest.raises(WrongState):
        await still.engine.changes.cancel(id_)


async def test_what_runs_elsewhere_is_asked_to_stop(still: Still) -> None:
    (job,) = await still.db.running()
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.CANCEL)
        await still.engine.changes.cancel(job.id)
        assert await heard(line) == [(keys.CANCEL, job.id)]
    first = (await still.db.row("job_running", job.id))["cancel_requested_at"]
    assert first is not None
    await still.engine.changes.cancel(job.id)
    assert (await still.db.row("job_running", job.id))["cancel_requested_at"] == first


async def test_a_success_that_was_quicker_stands(still: Still) -> None:
    (job,) = await still.db.running()
    await still.engine.changes.cancel(job.id)
    await still.db.settle(job, SUCCESS)
    assert await still.db.places([job.id]) == ["succeeded"]


@pytest.mark.parametrize("place", [succeeded, dead, cancelled])
async def test_what_is_over_can_not_be_cancelled(still: Still, place: Place) -> None:
    id_ = await place(still)
    with pytest.raises(WrongState) as caught:
        await still.engine.changes.cancel(id_)
    assert caught.value.state == place.__name__
    assert await still.db.places([id_]) == [place.__name__]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_what_nobody_knows_is_not_found(still: Still, verb: str) -> None:
    with pytest.raises(JobNotFound):
        await getattr(still.engine.changes, verb)(making.job_id())


async def test_a_cancel_and_a_start_at_once_leave_no_job_in_between(still: Still) -> None:
    changes, jobs = still.engine.changes, still.engine.jobs
    worker = await still.db.worker()
    seen = set()
    for n in range(15):
        ids = await still.db.submit(8)
        cancelling = asyncio.gather(*(changes.cancel(id_) for id_ in ids))
        await asyncio.sleep(n % 5 / 1000)  # now the one has the lead, now the other
        begun = {job.id for job in await jobs.start(ids, worker)}
        await cancelling
        for id_ in ids:
            (place,) = await still.db.places([id_])
            assert place == ("running" if id_ in begun else "cancelled")
            seen.add(place)
            if id_ in begun:
                row = await still.db.row("job_running", id_)
                assert row["cancel_requested_at"] is not None, "the cancel was answered, and lost"
    assert seen == {"running", "cancelled"}


async def test_a_cancel_and_a_settlement_at_once_end_a_job_once(still: Still) -> None:
    for _ in range(10):
        (job,) = await still.start()
        cancelling = asyncio.gather(still.engine.changes.cancel(job.id), return_exceptions=True)
        await still.settle((job, SUCCESS))
        (answer,) = await cancelling
        assert answer is None or isinstance(answer, WrongState)
        assert await still.db.places([job.id]) == ["succeeded"]


async def test_a_cancel_catches_a_job_that_keeps_moving(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never where it is looked for, until it is."""
    (id_,) = await still.submit()
    answers = [None, None, None]
    cancel_due = still.engine.jobs.cancel_due

    async def elusive(id_: JobId, entry: None) -> object:
        return answers.pop() if answers else await cancel_due(id_, entry)

    monkeypatch.setattr(still.engine.jobs, "cancel_due", elusive)
    await still.engine.changes.cancel(id_)
    assert await still.db.places([id_]) == ["cancelled"]
    answers[:] = [None] * 100
    (id_,) = await still.submit()
    with pytest.raises(Contended):
        await still.engine.changes.cancel(id_)


async def test_a_flood_of_cancels_leaves_connections_for_others(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await still.submit(30)
    cancel_due, at_once, most = still.engine.jobs.cancel_due, 0, 0

    async def watched(id_: JobId, entry: None) -> object:
        nonlocal at_once, most
        at_once, most = at_once + 1, max(most, at_once + 1)
        try:
            return await cancel_due(id_, entry)
        finally:
            at_once -= 1

    monkeypatch.setattr(still.engine.jobs, "cancel_due", watched)
    await asyncio.gather(*(still.engine.changes.cancel(id_) for id_ in ids))
    assert await still.db.places(ids) == ["cancelled"] * 30
    assert most <= 3


# Retry.


@pytest.mark.parametrize("place", [dead, cancelled])
async def test_what_did_not_succeed_gets_a_new_life(still: Still, place: Place) -> None:
    id_ = await place(still)
    tried = (await still.db.row("job_ended", id_))["attempt"]
    await still.engine.changes.retry(id_)
    await still.engine.enqueuer.drained()
    row = await still.db.row("job_due", id_)
    assert (row["attempt"], row["failures"], row["losses"]) == (tried, 0, 0)
    assert await still.db.row("job_ended", id_) is None
    assert await still.ready() == [id_]
    await still.engine.worker.step()
    await still.in_places([id_], "succeeded")
    assert await still.outcomes(id_) == ["failed"] * tried + ["succeeded"]


@pytest.mark.parametrize("place", [scheduled, ready, running, succeeded])
async def test_what_is_not_over_or_succeeded_can_not_be_retried(still: Still, place: Place) -> None:
    id_ = await place(still)
    before = await still.shelves()
    with pytest.raises(WrongState) as caught:
        await still.engine.changes.retry(id_)
    await still.engine.enqueuer.drained()
    assert caught.value.state == place.__name__
    assert await still.db.places([id_]) == [place.__name__]
    assert await still.shelves() == before


async def test_two_retries_at_once_give_one_life(still: Still) -> None:
    id_ = await dead(still)
    retry = still.engine.changes.retry
    answers = await asyncio.gather(*(retry(id_) for _ in range(5)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType"] + ["WrongState"] * 4
    assert await still.db.count("job_due") == 1


async def test_counts_follow_a_job_through_its_lives(still: Still) -> None:
    id_ = await dead(still)
    await still.engine.changes.retry(id_)
    await still.engine.changes.cancel(id_)
    rows = await still.db.session.fetch(
        "SELECT state, sum(delta)::int FROM queue_counts GROUP BY state ORDER BY state"
    )
    assert [tuple(row) for row in rows] == [("cancelled", 1), ("dead", 0)]


# Pause and resume.


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(still: Still) -> None:
    engine, book = still.engine, still.engine.book
    (id_,) = await still.submit(kind="gated")
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.SETTINGS)
        for verb, paused in ((engine.changes.pause, True), (engine.changes.resume, False)):
            book.wake.clear()
            await verb("default")
            assert book.wake.is_set(), "this replica reads it anew"
            assert await heard(line) == [(keys.SETTINGS, b"default")], "and so do the others"
            # Postgres refuses though the copy here is old.
            assert not book.paused("default")
            await engine.worker.step()
            await engine.enqueuer.drained()
            assert (await still.ready("gated") == [id_]) == paused
    assert await still.db.places([id_]) == ["running"]
    let_go(id_)


async def test_a_queue_can_be_paused_before_it_has_jobs(still: Still) -> None:
    await still.engine.changes.pause("new")
    assert (await still.db.queues.settings())["new"].paused
    await still.engine.changes.pause("new")
    await still.engine.changes.resume("new")
    assert not (await still.db.queues.settings())["new"].paused


# Without Redis, without Postgres.


async def test_without_redis_all_of_it_works(wired: Still, redis_wire: Wire) -> None:
    changes = wired.engine.changes
    gone, id_ = await dead(wired), await ready(wired)
    (job,) = await wired.db.running()
    await redis_wire.cut()
    await changes.cancel(id_)
    await changes.cancel(job.id)
    await changes.retry(gone)
    await changes.pause("default")
    assert await wired.db.places([id_, job.id, gone]) == ["cancelled", "running", "ready"]
    assert (await wired.db.row("job_running", job.id))["cancel_requested_at"] is not None
    assert (await wired.db.queues.settings())["default"].paused


async def test_without_postgres_callers_are_refused_at_once(still: Still) -> None:
    id_ = await ready(still)
    still.rooms.health.down = "as asked"
    changes = still.engine.changes
    for call in (changes.cancel, changes.retry):
        with pytest.raises(StoreUnavailable):
            await call(id_)
    for switch in (changes.pause, changes.resume):
        with pytest.raises(StoreUnavailable):
            await switch("default")
    still.rooms.health.down = None
    assert await still.db.places([id_]) == ["ready"]
