"""The enqueuer: what was committed is put in line; what can't be is reported."""

import asyncio

import orjson
import pytest

from penstock.commands import enqueuer
from penstock.domain import ids
from penstock.queue import keys
from penstock.queue.shelves import Off
from tests.support import making
from tests.support.still import Q, Still
from tests.support.wire import Wire


async def test_a_retry_is_in_line_after_its_lease_is_gone(still: Still) -> None:
    """The other way round it would stand on no shelf."""
    one = making.due(ready_ms=1)
    await still.redis.put({f"{Q}leases": {one.id: 9e15}})
    still.engine.enqueuer.put([one], [Off(one.queue, one.id)])
    await still.engine.enqueuer.drained()
    assert await still.shelves() == {f"{Q}ready:echo": {one.id: 1 - 5 * 60_000}}


async def test_what_gathers_is_sent_together_and_tells_once(still: Still) -> None:
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.WAKE, keys.ENDED)
        for _ in range(2):
            assert (await line.get_message(timeout=2))["type"] == "subscribe"
        due = [making.due(ready_ms=1) for _ in range(50)]
        off = [Off("default", id_, ended=True) for id_ in making.job_ids(50)]
        for one, other in zip(due, off, strict=True):
            still.engine.enqueuer.put([one], [other])
        await still.engine.enqueuer.drained()
        messages = {}
        while message := await line.get_message(timeout=0.1):
            assert message["channel"] not in messages
            messages[message["channel"].decode()] = message["data"]
    assert set(await still.ready()) == {one.id for one in due}
    wake = orjson.loads(messages[keys.WAKE])
    assert (wake["queue"], wake["ready"], wake["due_ms"]) == ("default", True, None)
    assert messages[keys.ENDED] == b"".join(one.id for one in off)


async def test_what_waits_for_parents_is_on_a_shelf_of_its_own_until_it_is_unlocked(
    still: Still,
) -> None:
    one, other, late = (making.due(ready_ms=1) for _ in range(3))
    still.engine.enqueuer.block([one, other])
    await still.engine.enqueuer.drained()
    age = ids.created_ms(one.id), ids.created_ms(other.id)
    assert await still.shelves() == {f"{Q}blocked": {one.id: age[0], other.id: age[1]}}
    still.engine.enqueuer.unlock([one, late])
    still.engine.enqueuer.block([late])  # told late: it had been blocked before
    await still.engine.enqueuer.drained()
    assert await still.ready() == [one.id, late.id]
    assert (await still.shelves())[f"{Q}blocked"] == {other.id: age[1]}
    await still.engine.enqueuer.withdraw([other])
    assert f"{Q}blocked" not in await still.shelves()


async def test_this_replica_is_woken_without_a_detour(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[set[str]] = []
    monkeypatch.setattr(still.engine.enqueuer, "_on_ready", told.append)
    still.engine.enqueuer.put([making.due(queue=queue) for queue in ("one", "two", "one")])
    await still.engine.enqueuer.drained()
    assert told == [{"one", "two"}]
    still.engine.enqueuer.put((), [Off("three", making.job_id())])
    await still.engine.enqueuer.drained()
    still.engine.enqueuer.block([making.due(queue="three")])
    await still.engine.enqueuer.drained()
    assert told == [{"one", "two"}], "neither an ack nor a blocked job is a reason to look"
    still.engine.enqueuer.unlock([making.due(queue="three")])
    await still.engine.enqueuer.drained()
    assert told == [{"one", "two"}, {"three"}]


async def test_a_line_that_is_not_whole_is_reported(still: Still) -> None:
    await still.engine.shelves.mark("whole")
    for queue in ("whole", "new"):
        await still.submit(queue=queue)
    assert still.engine.missing.wake.is_set()
    assert still.engine.missing.take() == {"new"}


async def test_while_redis_is_away_queues_are_reported_and_nobody_waits(
    wired: Still, redis_wire: Wire
) -> None:
    await redis_wire.cut()
    wired.engine.worker.wake.clear()
    async with asyncio.timeout(2):
        stored = [*await wired.submit(2), *await wired.submit(1, queue="other")]
    assert wired.engine.missing.take() == {"default", "other"}
    assert wired.engine.worker.wake.is_set(), "the worker asks Postgres instead"
    wired.engine.enqueuer.put((), [Off("default", stored[0])])
    wired.engine.enqueuer.block([making.due()])
    await wired.engine.enqueuer.drained()
    assert wired.engine.missing.take() == set(), "a lost ack costs a lease's time, no rebuild"
    wired.engine.enqueuer.unlock([making.due(queue="unlocked")])
    await wired.engine.enqueuer.drained()
    assert wired.engine.missing.take() == {"unlocked"}


async def test_too_much_is_not_held_for_a_redis_that_does_not_answer(
    wired: Still, redis_wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueuer, "_WAITING_MAX", 20)
    redis_wire.hold()
    for _ in range(40):
        wired.engine.enqueuer.put([making.due(ready_ms=1)])
        await asyncio.sleep(0)
    assert wired.engine.missing.take() == {"default"}
    wired.engine.enqueuer.unlock([making.due(queue="unlocked")])
    wired.engine.enqueuer.block([making.due()])
    assert wired.engine.missing.take() == {"unlocked"}
    redis_wire.release()
    await wired.engine.enqueuer.drained()
    assert f"{Q}blocked" not in await wired.shelves()
    assert 20 <= len(await wired.ready()) < 40, "the reconciler finds the others"


async def reconcile(still: Still) -> None:
    while await still.engine.reconciler.step() == 0.0:
        pass


@pytest.mark.parametrize("flushed", [False, True])
async def test_when_redis_is_back_its_lines_are_made_whole(
    wired: Still, redis_wire: Wire, flushed: bool
) -> None:
    before = await wired.submit(2)
    await reconcile(wired)
    await redis_wire.cut()
    meanwhile = [*await wired.submit(2), *await wired.submit(1, delay_s=60)]
    if flushed:
        await wired.redis.flush()
    await redis_wire.mend()
    await wired.redis_is(away=False)
    await reconcile(wired)
    assert await wired.ready() == [*before, *meanwhile[:2]]
    scheduled = (await wired.shelves()).get(f"{Q}scheduled", {})
    assert len(scheduled) == flushed, "without a flush it is found when it is due"
