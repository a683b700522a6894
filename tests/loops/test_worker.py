"""The worker: claims within its free slots, starts, and loses sight of nothing that it started."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from penstock import clock
from penstock.domain.attempt import Outcome
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import Started
from penstock.loops import worker
from penstock.loops.pool import Lane
from penstock.queue import keys
from penstock.queue.shelves import member
from penstock.settings import Settings
from penstock.store.rows import ms
from penstock.store.workers import Beat
from tests.support import making
from tests.support.gates import let_go
from tests.support.still import Q, Still, changed, standing
from tests.support.waiting import eventually
from tests.support.wire import Wire

CONDEMNED = Beat(alive=False, now_s=0.0, sent=0.0, received=0.0, cancel=())


def lane(still: Still, name: str = "async") -> Lane:
    return next(one for one in still.engine.pool.lanes if one.name == name)


async def running(still: Still) -> set[bytes]:
    rows = await still.db.session.fetch("SELECT job_id FROM job_running")
    return {row[0] for row in rows}


async def settled(still: Still, ids: Sequence[JobId]) -> None:
    """Returns when these are settled and known here no more."""

    async def look() -> bool:
        return not any(id_ in still.engine.held for id_ in ids)

    await eventually(look, "they are settled", every_s=0.005)


# Slots.


async def test_it_claims_as_many_as_slots_are_free(still: Still) -> None:
    step, ids = still.engine.worker.step, await still.submit(7, kind="gated")
    assert await step() == 0.0, "there may be more"
    assert lane(still).free == 0
    assert await running(still) == await still.leases() == set(ids[:4])
    assert await still.ready("gated") == ids[4:]

    assert await step() > 0.0
    assert await still.ready("gated") == ids[4:], "nothing is claimed without a free slot"

    let_go(ids[1])
    await settled(still, [ids[1]])
    assert still.engine.worker.wake.is_set(), "a free slot wakes it"
    await step()
    assert await still.ready("gated") == ids[5:]
    assert lane(still).free == 0


async def test_each_lane_fills_its_own_slots(still: Still) -> None:
    coroutines = await still.submit(5, kind="gated")
    threads = await still.submit(3, kind="gated-thread")
    await still.engine.worker.step()
    assert (lane(still).free, lane(still, "threads").free) == (0, 0)
    assert await running(still) == {*coroutines[:4], *threads[:2]}
    let_go(*threads)


async def test_slots_are_reserved_while_a_start_is_under_way(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []
    start = still.engine.jobs.start

    async def watched(ids: Sequence[JobId], name: WorkerId) -> list[Started]:
        free.append(lane(still).free)
        return await start(ids, name)

    monkeypatch.setattr(still.engine.jobs, "start", watched)
    await still.submit(3, kind="gated")
    await still.engine.worker.step()
    assert free == [0], "for the whole claim, of which it knew not how much it would get"
    assert lane(still).free == 1


async def test_one_claim_takes_at_most_claim_max(
    still_settings: Settings, dsn: str, redis_url: str
) -> None:
    few = changed(still_settings, worker={"claim_max": 2})
    async with standing(few, dsn, redis_url) as still:
        ids = await still.submit(4, kind="gated")
        await still.engine.worker.step()
        assert await running(still) == set(ids[:2])
        await still.engine.worker.step()
        assert await running(still) == set(ids)


async def test_a_start_of_large_payloads_takes_few(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_START_BYTES", 1000)
    large = '"' + "x" * 498 + '"'
    await still.submit(1, kind="gated", payload=large)
    await still.engine.worker.step()  # now it knows how large they are
    await still.submit(3, kind="gated", payload=large)
    for free in (1, 0):
        await still.engine.worker.step()
        assert lane(still).free == free


def is_stale(still: Still) -> None:
    still.engine.me.beat_at = clock.monotonic() - 0.75 * still.engine.me.ttl_s


def is_condemned(still: Still) -> None:
    still.engine.registrar.hear_beat(still.engine.me.worker, CONDEMNED)


def is_draining(still: Still) -> None:
    still.engine.me.draining = True


def is_full_of_endings(still: Still) -> None:
    still.engine.settler.unsettled = 10_000


def is_full_of_bytes(still: Still) -> None:
    still.engine.settler.unsettled_bytes = 64 * 1024 * 1024


@pytest.mark.parametrize(
    "hinder", [is_stale, is_condemned, is_draining, is_full_of_endings, is_full_of_bytes]
)
async def test_it_claims_nothing_when_it(hinder: Callable[[Still], None], still: Still) -> None:
    ids = await still.submit(2, kind="gated")
    hinder(still)
    pause = await still.engine.worker.step()
    assert await still.ready("gated") == ids
    assert 0.0 < pause <= 1.0, "it looks again"


# What start answers.


async def test_what_start_does_not_move_goes_where_it_belongs(still: Still) -> None:
    db, engine = still.db, still.engine
    locked, gone, good = await db.submit(3, kind="gated")
    (early,) = await db.submit(kind="gated", delay_s=60)
    (paused,) = await db.submit(kind="gated", queue="held")
    await db.jobs.cancel_due(gone)
    await db.queues.set_paused("held", paused=True)
    engine.book.wake.clear()
    line: dict[bytes, float] = {early: 1, locked: 2, gone: 3, good: 4}
    await still.redis.put({f"{Q}ready:gated": line, "{q:held}:ready:gated": {paused: 1}})

    async with db.session.transaction():
        await db.session.execute("SELECT 1 FROM job_due WHERE job_id = $1 FOR UPDATE", locked)
        engine.worker.heat(["held", "default"])
        for _ in range(2):  # the first fills up before it has asked both queues
            await engine.worker.step()
            await engine.enqueuer.drained()

    run_at = (await db.row("job_due", early))["ready_at"]
    due = making.due(id=early, kind="gated")
    shelves = await still.shelves()
    assert {name: list(members) for name, members in shelves.items()} == {
        f"{Q}leases": [good],
        f"{Q}ready:gated": [locked],
        f"{Q}scheduled": [member(due)],
        "{q:held}:ready:gated": [paused],
    }
    assert shelves[f"{Q}scheduled"] == {member(due): ms(run_at)}
    assert still.metric("stale_claims_total") == 1
    assert [run.job.id for run in engine.pool.busy()] == [good]
    assert engine.book.wake.is_set(), "it didn't know of the pause"


async def test_what_goes_back_keeps_its_place_in_line(still: Still) -> None:
    (urgent,) = await still.submit(kind="gated", priority=9)
    rest = await still.submit(2, kind="gated")
    before = await still.shelves()
    async with still.db.session.transaction():
        await still.db.session.execute("SELECT 1 FROM job_due FOR UPDATE")
        await still.engine.worker.step()
        await still.engine.enqueuer.drained()
    assert await still.shelves() == before
    assert await still.ready("gated") == [urgent, *rest]


# Starts whose answer is lost.


async def lose_a_start(wired: Still, wire: Wire, count: int) -> list[JobId]:
    """Jobs that run under our name without our knowledge."""
    ids = await wired.submit(count, kind="gated")
    await wired.engine.jobs.start([], wired.engine.me.worker)  # now it is prepared
    wire.lose_answer()
    await wired.engine.worker.step()
    assert wire.lost.is_set()
    assert await running(wired) == set(ids)
    assert wired.engine.pool.busy() == []
    return ids


async def test_a_start_whose_answer_is_lost_is_adopted_once(
    wired: Still, postgres_wire: Wire
) -> None:
    ids = await lose_a_start(wired, postgres_wire, 3)
    assert wired.engine.worker.adopt_wake.is_set(), "it is looked for at once"
    for _ in range(2):
        await wired.engine.worker.adopt()
        assert {run.job.id for run in wired.engine.pool.busy()} == set(ids)
        assert wired.metric("adopted_total") == 3
    assert lane(wired).free == 1
    let_go(*ids)
    await settled(wired, ids)
    for id_ in ids:
        assert await wired.outcomes(id_) == ["succeeded"]


async def test_after_a_lost_answer_adoption_looks_again_soon_for_as_long_as_the_statement_may_take(
    wired: Still, postgres_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that died may have left the statement waiting: it commits when nobody asks."""
    assert await wired.engine.worker.adopt() == 10.0
    ids = await lose_a_start(wired, postgres_wire, 1)
    assert await wired.engine.worker.adopt() == 0.0, "it was found"
    assert await wired.engine.worker.adopt() == 0.5
    later = clock.monotonic() + wired.engine.parts.settings.postgres.command_timeout_s
    monkeypatch.setattr(clock, "monotonic", lambda: later)
    assert await wired.engine.worker.adopt() == 10.0
    let_go(*ids)


async def test_those_that_are_known_hide_no_other(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many rows are read at a time, the oldest first."""
    monkeypatch.setattr(worker, "_ADOPT_MAX", 2)
    known = await still.submit(3, kind="gated")
    await still.engine.worker.step()
    strangers = [job.id for job in await still.start(3, kind="gated")]
    while await still.engine.worker.adopt() == 0.0:
        pass
    assert {run.job.id for run in still.engine.pool.busy()} == {*known, *strangers}
    assert still.metric("adopted_total") == 3


async def test_what_is_adopted_heeds_a_cancel_that_came_meanwhile(
    wired: Still, postgres_wire: Wire
) -> None:
    (id_,) = await lose_a_start(wired, postgres_wire, 1)
    await wired.engine.changes.cancel(id_)
    await wired.engine.worker.adopt()
    await wired.in_places([id_], "cancelled")
    assert await wired.outcomes(id_) == ["cancelled"]


async def test_a_start_is_sent_again_until_it_is_answered(
    wired: Still, postgres_wire: Wire
) -> None:
    ids = await wired.submit(2, kind="gated")
    await postgres_wire.cut()
    step = asyncio.create_task(wired.engine.worker.step())

    async def claimed() -> bool:
        return await wired.leases() == set(ids)

    await eventually(claimed, "both are claimed", every_s=0.01)
    assert not step.done()
    assert {*wired.engine.held.starting} == set(ids)
    await postgres_wire.mend()
    async with asyncio.timeout(5):
        await step
    assert {run.job.id for run in wired.engine.pool.busy()} == set(ids)
    assert not wired.engine.held.starting


async def test_a_start_ends_unanswered_when_we_drain(wired: Still, postgres_wire: Wire) -> None:
    ids = await wired.submit(2, kind="gated")
    await postgres_wire.cut()
    step = asyncio.create_task(wired.engine.worker.step())

    async def starting() -> bool:
        return bool(wired.engine.held.starting)

    await eventually(starting, "the start is under way", every_s=0.01)
    wired.engine.me.draining = True
    await asyncio.wait([step], timeout=2)
    assert step.done()
    assert step.exception() is not None, "Postgres is away, so nobody knows where they are"
    assert not wired.engine.held.starting
    assert await wired.leases() == set(ids), "they come back when their leases end"


# Adoption against what goes on meanwhile.


async def test_what_ends_while_adoption_asks_is_not_run_again(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, ask = still.engine, still.engine.jobs.running_of
    (id_,) = await still.submit(kind="gated")
    await engine.worker.step()

    async def slow(*args: Any, **fields: Any) -> list[tuple[Started, bool]]:
        rows = await ask(*args, **fields)
        assert rows == [], "what is known is not even asked for"
        let_go(id_)
        await settled(still, [id_])
        return rows

    monkeypatch.setattr(engine.jobs, "running_of", slow)
    await engine.worker.adopt()
    assert still.metric("adopted_total") == 0
    assert engine.pool.busy() == []
    assert await still.outcomes(id_) == ["succeeded"]


@pytest.mark.parametrize("ends", [False, True])
async def test_what_starts_while_adoption_asks_is_not_run_twice(
    still: Still, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    engine, ask = still.engine, still.engine.jobs.running_of
    ids = await still.submit(3, kind="gated")

    async def slow(*args: Any, **fields: Any) -> list[tuple[Started, bool]]:
        await engine.worker.step()
        rows = await ask(*args, **fields)
        assert {job.id for job, _ in rows} == set(ids)
        if ends:
            let_go(*ids)
            await settled(still, ids)
        return rows

    monkeypatch.setattr(engine.jobs, "running_of", slow)
    await engine.worker.adopt()
    assert still.metric("adopted_total") == 0
    assert len(engine.pool.busy()) == (0 if ends else 3)


async def test_a_start_that_is_not_answered_yet_is_not_adopted(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, start = still.engine, still.engine.jobs.start
    await still.submit(3, kind="gated")

    async def slow(ids: Sequence[JobId], name: WorkerId) -> list[Started]:
        started = await start(ids, name)
        await engine.worker.adopt()
        return started

    monkeypatch.setattr(engine.jobs, "start", slow)
    await engine.worker.step()
    assert still.metric("adopted_total") == 0
    assert len(engine.pool.busy()) == 3


async def test_nothing_is_adopted_while_we_drain(still: Still) -> None:
    (job,) = await still.start(kind="gated")
    still.engine.me.draining = True
    await still.engine.worker.adopt()
    assert still.engine.pool.busy() == [], "the drain hands it back, maybe at this moment"
    still.engine.me.draining = False
    await still.engine.worker.adopt()
    assert [run.job for run in still.engine.pool.busy()] == [job]


@pytest.mark.parametrize("named_anew", [False, True])
async def test_what_a_start_brings_after_our_condemnation_is_not_run(
    still: Still, monkeypatch: pytest.MonkeyPatch, named_anew: bool
) -> None:
    engine, start = still.engine, still.engine.jobs.start
    ids = await still.submit(2, kind="gated")

    async def late(ids: Sequence[JobId], name: WorkerId) -> list[Started]:
        started = await start(ids, name)
        assert len(started) == 2
        engine.registrar.hear_beat(name, CONDEMNED)
        if named_anew:
            await engine.registrar.step()
        return started

    monkeypatch.setattr(engine.jobs, "start", late)
    await engine.worker.step()
    await engine.settler.drained()
    assert engine.pool.busy() == [], "others may have settled them as lost and run them again"
    for id_ in ids:
        assert await still.outcomes(id_) == ["lost"]
    await still.in_places(ids, "ready")


@pytest.mark.parametrize("named_anew", [False, True])
async def test_what_adoption_finds_after_our_condemnation_is_not_run(
    still: Still, monkeypatch: pytest.MonkeyPatch, named_anew: bool
) -> None:
    engine, ask = still.engine, still.engine.jobs.running_of
    (job,) = await still.start(kind="gated")

    async def late(*args: Any, **fields: Any) -> list[tuple[Started, bool]]:
        rows = await ask(*args, **fields)
        engine.registrar.hear_beat(engine.me.worker, CONDEMNED)
        if named_anew:
            await engine.registrar.step()
        return rows

    monkeypatch.setattr(engine.jobs, "running_of", late)
    await engine.worker.adopt()
    await engine.settler.drained()
    assert engine.pool.busy() == []
    assert await still.outcomes(job.id) == ["lost"]


async def test_a_stopped_run_is_not_started_again_by_the_pool(still: Still) -> None:
    """A cancel between put and begin: its handler never begins."""
    (id_,) = await still.submit(kind="gated")
    await still.engine.worker.step()
    run = still.engine.pool.find(id_)
    assert run is not None
    still.engine.pool.stop(run, Outcome.CANCELLED)
    await still.in_places([id_], "cancelled")


async def test_a_job_of_a_foreign_kind_on_our_shelf_goes_back_to_its_own(still: Still) -> None:
    (id_,) = await still.submit(kind="nobodys")
    (shelf,) = keys.ready(Q, ["gated"])
    await still.redis.door.command("ZADD", shelf, 1, id_)
    still.engine.worker.heat([Q])
    await still.engine.worker.step()
    await still.engine.settler.drained()
    await still.engine.enqueuer.drained()
    assert await running(still) == set()
    assert await still.ready("nobodys") == [id_]
    outcomes = await still.db.session.fetch("SELECT outcome FROM attempts")
    assert [row[0] for row in outcomes] == ["released"]
