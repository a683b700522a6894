"""Shutdown: what can end, ends; what can't is handed back as if it had never begun."""

import asyncio

import pytest

from penstock import clock
from penstock.domain.ids import JobId
from penstock.loops import drain
from tests.support.gates import let_go
from tests.support.still import Still
from tests.support.waiting import eventually
from tests.support.wire import Wire


async def begun(still: Still, count: int = 1, kind: str = "gated") -> list[JobId]:
    ids = await still.submit(count, kind=kind)
    await still.engine.worker.step()
    assert len(still.engine.pool.busy()) >= count
    return ids


async def turn_deadlines(still: Still) -> None:
    pause = 0.0
    while pause >= 0:
        await asyncio.sleep(pause)
        pause = min(await still.engine.pool.check_deadlines(), 0.02)


async def drained(still: Still) -> None:
    """Drains while the loop of deadlines turns, as it does in a replica."""
    turning = asyncio.create_task(turn_deadlines(still))
    async with asyncio.timeout(10):
        await still.engine.drain()
    turning.cancel()


async def workers(still: Still) -> int:
    return await still.db.count("workers")


async def test_what_ends_in_time_is_settled_as_ever(still: Still) -> None:
    ids = await begun(still, 2)
    draining = asyncio.create_task(drained(still))
    await asyncio.sleep(0.01)
    assert not still.engine.me.may_claim
    let_go(*ids)
    await draining
    for id_ in ids:
        assert await still.outcomes(id_) == ["succeeded"]
    assert await workers(still) == 0


async def test_what_is_late_is_handed_back_and_nothing_is_spent(still: Still) -> None:
    ids = await begun(still, 3)
    starts = [await still.db.row("job_running", id_) for id_ in ids]
    await drained(still)
    assert await still.db.count("job_running") == 0
    assert await workers(still) == 0
    assert await still.ready("gated") == ids, "in their old places"
    assert await still.leases() == set()
    for id_, start in zip(ids, starts, strict=True):
        assert await still.outcomes(id_) == ["released"]
        due = await still.db.row("job_due", id_)
        assert (due["attempt"], due["failures"], due["losses"]) == (1, 0, 0)
        assert due["ready_at"] == start["ready_at"]


@pytest.mark.parametrize("kind", ["gated-stubborn", "gated-thread"])
async def test_what_does_not_heed_its_end_is_handed_back_without_it(
    still: Still, kind: str
) -> None:
    (id_,) = await begun(still, kind=kind)
    began = clock.monotonic()
    await drained(still)
    assert clock.monotonic() - began < 2
    assert await still.outcomes(id_) == ["released"]
    assert await still.ready(kind) == [id_]
    let_go(id_)
    await asyncio.sleep(0.02)
    await still.engine.settler.drained()
    assert await still.outcomes(id_) == ["released"], "its late ending counts for nothing"


async def test_what_we_do_not_know_of_is_handed_back_too(still: Still) -> None:
    """A start whose answer was lost."""
    (job,) = await still.start()
    assert still.engine.pool.busy() == []
    await drained(still)
    assert await still.outcomes(job.id) == ["released"]
    assert await still.ready() == [job.id]
    assert await workers(still) == 0


async def test_it_returns_when_what_was_handed_back_is_in_line(
    wired: Still, redis_wire: Wire
) -> None:
    """Others shall run it at once, not when they find out."""
    (job,) = await wired.start()
    redis_wire.hold()
    draining = asyncio.create_task(drained(wired))

    async def left() -> bool:
        return not await workers(wired)

    await eventually(left, "it has left", every_s=0.01)
    await asyncio.sleep(0.05)
    assert not draining.done()
    redis_wire.release()
    await draining
    assert await wired.ready() == [job.id]


async def test_more_than_one_page_is_handed_back(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_ROWS_MAX", 3)
    jobs = await still.start(10)
    await drained(still)
    assert await still.ready() == [job.id for job in jobs]


async def test_what_was_to_be_cancelled_is_not_handed_back(still: Still) -> None:
    (job,) = await still.start()
    (id_,) = await begun(still)
    for one in (job.id, id_):
        await still.db.jobs.cancel_running(one)
    await drained(still)
    assert await still.db.places([job.id, id_]) == ["cancelled", "cancelled"]


async def test_nothing_is_claimed_or_renamed_any_more(still: Still) -> None:
    await drained(still)
    ids = await still.submit(2, kind="gated")
    await still.engine.worker.step()
    await still.engine.registrar.step()
    assert await still.ready("gated") == ids
    assert await workers(still) == 0


async def test_without_postgres_it_ends_and_leaves_the_rest_to_the_reaper(
    wired: Still, postgres_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_HAND_BACK_S", 0.3)
    (id_,) = await begun(wired)
    await postgres_wire.cut()
    began = clock.monotonic()
    async with asyncio.timeout(10):
        await wired.engine.drain()
    assert clock.monotonic() - began < 2
    assert await wired.db.places([id_]) == ["running"]
    await postgres_wire.mend()
    await wired.db.workers.leave(wired.engine.me.worker)
    await wired.engine.settler.drained()
