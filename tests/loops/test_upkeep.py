"""The small loops: log lines of long attempts, counts, gauges, and the copy of the queues."""

import asyncio

from penstock.domain.ids import JobId
from penstock.telemetry.of_replica import LANES
from tests.support.gates import let_go
from tests.support.making import SUCCESS
from tests.support.still import Still
from tests.support.wire import Wire


async def messages(still: Still, id_: bytes) -> list[str]:
    rows = await still.db.session.fetch(
        "SELECT message FROM job_logs WHERE job_id = $1 ORDER BY seq", id_
    )
    return [row[0] for row in rows]


async def test_what_a_long_attempt_logs_is_kept_while_it_runs(
    wired: Still, postgres_wire: Wire
) -> None:
    (id_,) = await wired.submit(kind="gated")
    await wired.engine.worker.step()
    run = wired.engine.pool.find(id_)
    assert run is not None
    run.context.log.info("one")
    assert await wired.engine.upkeep.keep_reports() == 1.0
    assert await messages(wired, id_) == ["one"]
    run.context.log.info("two")
    await postgres_wire.cut()
    keeping = asyncio.create_task(wired.engine.upkeep.keep_reports())
    await asyncio.sleep(0.05)
    assert not keeping.done(), "lines that were taken are not lost"
    await postgres_wire.mend()
    async with asyncio.timeout(5):
        await keeping
    run.context.log.info("three")
    await wired.engine.upkeep.keep_reports()
    assert await messages(wired, id_) == ["one", "two", "three"]
    run.context.log.info("four")
    let_go(id_)
    await wired.in_places([id_], "succeeded")
    assert await messages(wired, id_) == ["one", "two", "three", "four"]


async def progress(still: Still, id_: bytes) -> tuple[float, str | None] | None:
    view = await still.db.reads.job(JobId(id_))
    assert view is not None
    told = view.progress
    return None if told is None else (told.percent, told.message)


async def test_progress_of_all_that_runs_is_kept_by_one_statement(still: Still) -> None:
    ids = await still.submit(3, kind="gated")
    await still.engine.worker.step()
    contexts = [run.context for id_ in ids if (run := still.engine.pool.find(id_))]
    contexts[0].progress(10)
    contexts[1].progress(20, "b")
    await still.engine.upkeep.keep_reports()
    assert [await progress(still, id_) for id_ in ids] == [(10, None), (20, "b"), None]
    versions = "SELECT array_agg(xmin::text ORDER BY job_id) FROM job_progress"
    (first, second) = await still.db.session.fetchval(versions)
    assert first == second, "one transaction"
    contexts[1].progress(30, "c")
    await still.engine.upkeep.keep_reports()
    assert [await progress(still, id_) for id_ in ids] == [(10, None), (30, "c"), None]
    (same, newer) = await still.db.session.fetchval(versions)
    assert (same == first, newer == second) == (True, False), "only what has changed is written"
    let_go(*ids)
    await still.in_places(ids, "succeeded")
    assert await progress(still, ids[1]) == (30, "c"), "what it told last stays"
    assert await still.db.count("job_progress") == 2, "who tells nothing has no row"


async def test_what_a_handler_tells_just_before_its_end_is_there_at_its_end(still: Still) -> None:
    ids = await still.submit(2, kind="telling", payload="[40]")
    ids += await still.submit(1, kind="telling-thread", payload="[10, 100]")
    await still.engine.worker.step()
    await still.in_places(ids, "succeeded")
    assert [await progress(still, id_) for id_ in ids] == [(40, "told")] * 2 + [(100, "told")]


async def test_a_report_that_waited_for_postgres_does_not_undo_a_later_one(
    wired: Still, postgres_wire: Wire
) -> None:
    (id_,) = await wired.submit(kind="gated")
    await wired.engine.worker.step()
    run = wired.engine.pool.find(id_)
    assert run is not None
    run.context.progress(10, "early")
    await postgres_wire.cut()
    keeping = asyncio.create_task(wired.engine.upkeep.keep_reports())
    await asyncio.sleep(0)
    run.context.progress(90, "late")
    let_go(id_)
    await postgres_wire.mend()
    async with asyncio.timeout(10):
        await keeping
    await wired.in_places([id_], "succeeded")
    assert await progress(wired, id_) == (90, "late")


async def test_counts_are_folded_when_they_age(still: Still) -> None:
    for _ in range(3):
        (job,) = await still.start()
        await still.settle((job, SUCCESS))
    count = "SELECT count(*), sum(delta)::int FROM queue_counts"
    await still.engine.upkeep.fold_counts()
    assert [tuple(row) for row in await still.db.session.fetch(count)] == [(3, 3)]
    await still.db.session.execute("UPDATE queue_counts SET at = at - interval '2 minutes'")
    await still.engine.upkeep.fold_counts()
    assert [tuple(row) for row in await still.db.session.fetch(count)] == [(1, 3)]


async def test_slots_are_shown_by_lane(still: Still) -> None:
    await still.submit(3, kind="gated")
    await still.engine.worker.step()
    await still.engine.upkeep.gauges()
    lanes = {lane.name: lane.slots for lane in still.engine.pool.lanes if lane.kinds}
    assert lanes.keys() == set(LANES), "no slot is free for claims in the lane of children"
    for lane, busy in {"async": 3, "threads": 0}.items():
        assert still.metric("slots", lane=lane, state="busy") == busy
        assert still.metric("slots", lane=lane, state="free") == lanes[lane] - busy
    assert still.metric("leaked_slots") == 0


async def test_the_book_knows_what_is_paused_and_tells_when_it_changes(still: Still) -> None:
    book, told = still.engine.book, list[list[str]]()
    book.on_change = told.append
    await still.db.queues.set_paused("another", paused=False)
    await book.step()
    told.clear()
    assert not book.paused("q"), "what nobody knows is not paused"
    assert book.aging_ms("q") == 60_000
    assert await book.step() == 1.0
    assert told == []
    await still.db.queues.set_paused("q", paused=True)
    await still.db.session.execute("UPDATE queues SET priority_aging_s = 7 WHERE queue = 'q'")
    for _ in range(2):
        await book.step()
    assert told == [["q"]], "once, and only what changed"
    assert sorted(book.names()) == ["another", "q"]
    assert (book.paused("q"), book.aging_ms("q")) == (True, 7000)


async def test_tasks_are_counted(still: Still) -> None:
    await still.engine.upkeep.gauges()
    before = still.metric("tasks")
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(5)]
    await still.engine.upkeep.gauges()
    assert still.metric("tasks") == before + 5
    for task in waiting:
        task.cancel()
