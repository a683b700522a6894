"""The reconciler: what is due in Postgres and on no shelf is put on one; nothing is taken away."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from redis.asyncio.client import PubSub

from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.loops import mirror, reconciler
from penstock.queue import keys
from penstock.queue.shelves import member
from penstock.settings import Settings
from penstock.store.line import Round
from tests.support import making
from tests.support.blocking import block
from tests.support.still import Q, Still
from tests.support.wire import Wire

READY = keys.ready("default", ["echo"])[0]


@pytest.fixture
async def line(still: Still) -> AsyncIterator[PubSub]:
    """Hears the wake-ups."""
    async with still.redis.raw.pubsub() as pubsub:
        await pubsub.subscribe(keys.WAKE)
        assert (await pubsub.get_message(timeout=2))["type"] == "subscribe"
        yield pubsub


async def woken(line: PubSub) -> list[dict[str, object]]:
    """All wake-ups that have come."""
    heard = []
    while message := await line.get_message(timeout=0.05):
        heard.append(orjson.loads(message["data"]))
    return heard


async def in_line(still: Still, count: int, **fields: object) -> list[JobId]:
    """Jobs in a line that is whole."""
    ids = await still.submit(count, **fields)
    await reconcile(still)
    return ids


async def reconcile(still: Still) -> int:
    """Steps until there is nothing more to do at once; how many steps that were."""
    steps = 1
    while (pause := await still.engine.reconciler.step()) == 0.0:
        steps += 1
    assert 1.5 <= pause <= 2.5
    return steps


async def is_marked(still: Still, queue: str = "default") -> bool:
    return bool(await still.redis.raw.exists(keys.meta(queue)))


async def test_ids_that_were_lost_come_back_to_their_place(still: Still, line: PubSub) -> None:
    await in_line(still, 5)
    await in_line(still, 1, priority=9)
    before = await still.shelves()
    await woken(line)
    ids = await still.ready()
    await still.redis.raw.zrem(READY, ids[0], ids[3])
    assert await reconcile(still) == 1
    assert await still.shelves() == before
    assert still.metric("reconciled_total") == 2
    assert await woken(line) == [{"queue": "default", "ready": True, "origin": None}]


async def test_a_whole_line_is_left_alone(still: Still, line: PubSub) -> None:
    await in_line(still, 3)
    await in_line(still, 1, delay_s=60)
    await woken(line)
    before = await still.shelves()
    await reconcile(still)
    assert await still.shelves() == before
    assert still.metric("reconciled_total") == 0
    assert await woken(line) == []


async def test_a_kind_that_nobody_serves_hides_no_other(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_HEAD", 3)
    await in_line(still, 5, kind="nobodys", priority=9)
    await in_line(still, 2)
    ids = await still.ready()
    await still.redis.raw.zrem(READY, *ids)
    await reconcile(still)
    assert await still.ready() == ids


async def test_however_many_lines_there_are_each_has_its_round(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers may invent kinds and queues without end."""
    monkeypatch.setattr(reconciler, "_LINES", 4)
    still.engine.reconciler._round = Round(still.engine.line, 4)
    pairs = [(f"q{n % 3}", f"kind-{n}") for n in range(10)]
    for queue, kind in pairs:
        await still.db.submit(queue=queue, kind=kind)
    for queue in ("q0", "q1", "q2"):
        await still.engine.shelves.mark(queue)
    for found in (4, 8, 10):
        await still.engine.reconciler.step()
        assert len(await still.shelves()) == found


async def test_after_a_flush_the_line_is_rebuilt_in_pages_and_then_marked(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields in ({}, {"priority": 9}, {"kind": "sum"}, {"delay_s": 60.0}):
        await in_line(still, 4, **fields)
    before = await still.shelves()
    assert sum(map(len, before.values())) == 16
    await still.redis.flush()
    monkeypatch.setattr(reconciler, "_HEAD", 0)  # or it would find the first of them by itself
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    for found in (5, 10, 15, 16):
        assert not await is_marked(still)
        assert await still.engine.reconciler.step() == 0.0, "the next page follows at once"
        assert sum(map(len, (await still.shelves()).values())) == found
    assert await reconcile(still) == 1
    assert await is_marked(still)
    assert await still.shelves() == before
    assert still.metric("reconciled_total") == 16


async def test_after_a_flush_what_waits_for_parents_is_mirrored_before_the_mark(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_line(still, 5)
    waiting = [*await block(still.db, 7), *await block(still.db, 4, kind="sum")]
    await block(still.db, 6, queue="other")
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    monkeypatch.setattr(mirror, "_PAGE", 0)  # or it would find them by itself
    await still.redis.flush()
    still.engine.missing.report(["default"])
    for found in (0, 5, 10, 11):
        assert await still.engine.reconciler.step() == 0.0, "the next page follows at once"
        assert len((await still.shelves()).get(f"{Q}blocked", {})) == found
        assert not await is_marked(still)
    assert await reconcile(still) == 1
    assert await is_marked(still)
    assert set((await still.shelves())[f"{Q}blocked"]) == set(waiting)
    assert "{q:other}:blocked" not in await still.shelves()
    assert len(await still.ready()) == 5
    assert still.metric("reconciled_total") == 5, "nobody waits for the mirror"


async def test_while_redis_was_away_nothing_unlocked_is_lost(
    wired: Still, redis_wire: Wire
) -> None:
    await in_line(wired, 1)
    one, waits = (making.due(ready_ms=1) for _ in range(2))
    wired.engine.enqueuer.block([one])
    await wired.engine.enqueuer.drained()
    await redis_wire.cut()
    await wired.redis_is(away=True)
    wired.engine.enqueuer.block([waits])
    await wired.db.submit(id=one.id)  # its parents are over
    wired.engine.enqueuer.unlock([one])
    await wired.engine.enqueuer.drained()
    await redis_wire.mend()
    await wired.redis_is(away=False)
    await reconcile(wired)
    assert one.id in await wired.ready()
    assert f"{Q}blocked" not in await wired.shelves()


async def test_a_rebuild_does_not_run_after_what_is_submitted_meanwhile(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await in_line(still, 6)
    await in_line(still, 1, delay_s=60)
    await still.redis.flush()
    monkeypatch.setattr(reconciler, "_HEAD", 0)
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    monkeypatch.setattr(reconciler, "_ASTRAY_MS", 0)
    still.engine.missing.report(["default"])
    assert await still.engine.reconciler.step() == 0.0
    meanwhile = [JobId(still.engine.minter.mint()) for _ in range(12)]
    for id_ in meanwhile:  # whose takers put none in line
        await still.db.submit(id=id_)
    assert await reconcile(still) == 2, "the second page, and that there is no third"
    assert await is_marked(still)
    assert await still.ready() == before
    assert still.metric("reconciled_total") == 7
    monkeypatch.setattr(reconciler, "_HEAD", 1000)
    await reconcile(still)
    assert await still.ready() == [*before, *meanwhile], "who lost them finds them at the head"


async def test_a_rebuild_goes_on_where_redis_broke_it_off(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_line(still, 9)
    before = await still.shelves()
    await still.redis.flush()
    restore, fails = still.engine.shelves.restore, True

    async def breaking(queue: str, due: Sequence[Due]) -> int:
        if fails and len(await still.shelves()):
            raise QueueUnavailable("as asked")
        return await restore(queue, due)

    monkeypatch.setattr(reconciler, "_HEAD", 0)
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    monkeypatch.setattr(still.engine.shelves, "restore", breaking)
    still.engine.missing.report(["default"])
    assert await still.engine.reconciler.step() == 0.0
    for _ in range(2):
        with pytest.raises(QueueUnavailable):
            await still.engine.reconciler.step()
        assert not await is_marked(still)
    fails = False
    await reconcile(still)
    assert await still.shelves() == before
    assert await is_marked(still)


async def test_a_rebuild_whose_replica_died_is_taken_over(
    still: Still, still_settings: Settings, dsn: str, redis_url: str
) -> None:
    await in_line(still, 3)
    before = await still.shelves()
    await still.redis.flush()
    assert await still.redis.shelves.lock("rebuild:default", 10)
    still.engine.missing.report(["default"])
    await reconcile(still)
    assert not await is_marked(still), "another one is at it"
    await still.redis.raw.delete(keys.lock("rebuild:default"))  # as it expires
    await reconcile(still)
    assert await is_marked(still)
    assert await still.shelves() == before


@pytest.mark.parametrize("flushed_after", [1, 2, 3, 4])
async def test_a_flush_during_a_rebuild_is_noticed_and_it_starts_over(
    still: Still, monkeypatch: pytest.MonkeyPatch, flushed_after: int
) -> None:
    await in_line(still, 16)
    before = await still.shelves()
    await still.redis.flush()
    monkeypatch.setattr(reconciler, "_HEAD", 0)  # the head checks would mend it too, in time
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    still.engine.missing.report(["default"])
    for _ in range(flushed_after):  # after the fourth page only the marker is to be written
        assert await still.engine.reconciler.step() == 0.0
    await still.redis.flush()
    assert await still.engine.reconciler.step() == 0.0
    assert not await is_marked(still), "what stood before the flush is gone"
    assert await still.shelves() == {}, "the next page is the first"
    await reconcile(still)
    assert await still.shelves() == before
    assert await is_marked(still)
    assert not await still.redis.raw.exists(keys.rebuild("default"))


async def test_a_rebuild_is_not_taken_for_one_that_another_replica_began(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_line(still, 6)
    await still.redis.flush()
    monkeypatch.setattr(reconciler, "_PAGE", 5)
    still.engine.missing.report(["default"])
    assert await still.engine.reconciler.step() == 0.0
    await still.redis.shelves.begin_rebuild("default", "another")
    assert not await still.engine.shelves.mark("default", "ours")
    await reconcile(still)
    assert await is_marked(still), "begun anew, under a new name"


async def test_a_new_queue_is_marked_though_it_is_empty(still: Still) -> None:
    still.engine.missing.report(["new"])
    await reconcile(still)
    assert await is_marked(still, "new")


async def test_nothing_is_ever_taken_away(still: Still) -> None:
    gone, leased = making.job_ids(2)
    (claimed,) = await in_line(still, 1)
    await still.engine.shelves.claim("default", ["echo"], 1, 10.0)
    (due,) = await in_line(still, 1)
    future = member(making.due(id=gone))
    await still.redis.put(
        {f"{Q}ready:echo": {gone: 7}, f"{Q}scheduled": {future: 8}, f"{Q}leases": {leased: 9}}
    )
    for flushed in (False, True):
        if flushed:
            await still.redis.raw.delete(keys.meta("default"))
        before = await still.shelves()
        await reconcile(still)
        assert await still.shelves() == before
    assert await still.leases() == {claimed, leased}, "what is claimed isn't put in line again"
    assert set(await still.ready()) == {due, gone}


async def test_what_is_due_moves_from_the_scheduled_shelf(still: Still) -> None:
    """No promoter has come, or the clock of Redis is behind."""
    (id_,) = await still.db.submit()
    far = member(making.due(id=id_))
    await still.redis.put({f"{Q}scheduled": {far: 9e15}})
    await reconcile(still)
    assert await still.ready() == [id_]
    assert f"{Q}scheduled" not in await still.shelves()


async def test_while_many_are_missing_it_looks_again_at_once(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_HEAD", 150)
    await still.engine.shelves.mark("default")
    ids = await still.db.submit(200)
    assert await still.engine.reconciler.step() == 0.0
    assert len(await still.ready()) == 150, "the first ones"
    for id_ in (await still.ready())[:100]:
        await still.db.jobs.cancel_due(JobId(id_))
    assert await still.engine.reconciler.step() > 0.0, "what was behind them has risen"
    assert set(ids) == set(await still.ready())


async def test_replicas_take_turns_but_what_is_reported_is_mended_at_once(still: Still) -> None:
    await in_line(still, 1)
    await still.redis.raw.delete(keys.lock("reconcile"))
    assert await still.redis.shelves.lock("reconcile", 10)
    (id_,) = await still.db.submit(queue="other")
    await reconcile(still)
    assert "{q:other}:ready:echo" not in await still.shelves(), "another replica does it"
    still.engine.missing.report(["other"])
    await reconcile(still)
    assert list((await still.shelves())["{q:other}:ready:echo"]) == [id_]
    assert await is_marked(still, "other")


async def test_what_was_reported_is_not_forgotten_when_redis_is_away(
    wired: Still, redis_wire: Wire
) -> None:
    wired.engine.missing.report(["new"])
    await redis_wire.cut()
    with pytest.raises(QueueUnavailable):
        await wired.engine.reconciler.step()
    assert wired.engine.missing.take() == {"new"}


async def test_what_was_submitted_while_redis_was_away_is_in_line_when_it_is_back(
    wired: Still, redis_wire: Wire
) -> None:
    before = await in_line(wired, 1)
    await wired.engine.book.step()
    await redis_wire.cut()
    await wired.redis_is(away=True)
    meanwhile = await wired.submit(3)
    assert await wired.ready() == before
    wired.engine.missing.take()
    await redis_wire.mend()
    await wired.redis_is(away=False)
    assert wired.engine.missing.wake.is_set(), "it is woken"
    await reconcile(wired)
    assert await wired.ready() == [*before, *meanwhile]


async def test_while_redis_is_away_nobody_is_told_to_lead(wired: Still, redis_wire: Wire) -> None:
    for one, task in ((wired.engine.reconciler, "reconcile"), (wired.engine.auditor, "audit")):
        await redis_wire.mend()
        await wired.redis_is(away=False)
        await one.step()
        assert wired.metric("leader", task=task) == 1
        await redis_wire.cut()
        await wired.redis_is(away=True)
        with pytest.raises(QueueUnavailable):
            await one.step()
        assert wired.metric("leader", task=task) == 0
