"""The promoter: moves what is due to the ready shelves, and sleeps until the next is."""

import asyncio

import orjson
import pytest

from penstock import clock
from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.queue import keys
from penstock.queue.shelves import CHUNK, Promoted, member
from tests.support import making
from tests.support.still import Q, Still
from tests.support.wire import Wire


async def schedule(still: Still, in_ms: float, queue: str = "default", **fields: object) -> JobId:
    """Puts one on the scheduled shelf, due by the clock of Redis."""
    one = making.due(queue=queue, **fields)
    due_ms = await still.redis.now_ms() + in_ms
    await still.redis.put({f"{{q:{queue}}}:scheduled": {member(one): due_ms}})
    return one.id


async def test_what_is_due_is_promoted_and_the_next_expected(still: Still) -> None:
    promoter = still.engine.promoter
    due = [await schedule(still, -n) for n in (20, 10)]
    later = await schedule(still, 30_000)
    promoter.expect("default", 0.0)
    pause = await promoter.step()
    assert await still.ready() == due
    assert (await still.shelves())[f"{Q}scheduled"].keys() == {member(making.due(id=later))}
    assert pause == pytest.approx(30, abs=1)


async def test_it_wakes_when_the_next_is_due_and_not_before(still: Still) -> None:
    promoter = still.engine.promoter
    due_at = clock.monotonic() + 0.15
    id_ = await schedule(still, 150)
    promoter.expect("default", 0.0)
    pause = await promoter.step()
    assert 0.1 < pause <= 0.16
    assert await still.ready() == []
    while not await still.ready():
        await asyncio.sleep(pause)
        pause = await promoter.step()
    assert await still.ready() == [id_]
    assert -0.01 < clock.monotonic() - due_at < 0.3


async def test_it_rests_while_nothing_is_expected(still: Still) -> None:
    assert await still.engine.promoter.step() == pytest.approx(5, abs=0.1)


async def test_an_earlier_arrival_shortens_the_sleep(still: Still) -> None:
    promoter = still.engine.promoter
    promoter.expect("default", 30)
    assert promoter.wake.is_set()
    promoter.wake.clear()
    assert 29 < await promoter.step() <= 30
    for queue, in_s, wakes in (
        ("default", 40, False),
        ("default", 20, True),
        ("other", 10, True),
        ("default", 25, False),
    ):
        promoter.expect(queue, in_s)
        assert promoter.wake.is_set() == wakes, (queue, in_s)
        promoter.wake.clear()
    assert 9 < await promoter.step() <= 10


async def test_each_goes_to_the_shelf_of_its_kind_at_its_priority(still: Still) -> None:
    ids = {
        (kind, priority): await schedule(still, -100, kind=kind, priority=priority)
        for kind in ("echo", "sum")
        for priority in (0, 9)
    }
    still.engine.promoter.expect("default", 0.0)
    await still.engine.promoter.step()
    for kind in ("echo", "sum"):
        assert await still.ready(kind) == [ids[kind, 9], ids[kind, 0]]


async def test_more_than_a_chunk_is_promoted_in_one_step(still: Still) -> None:
    due = {member(making.due()): float(n) for n in range(CHUNK + 100)}
    await still.redis.put({f"{Q}scheduled": due})
    still.engine.promoter.expect("default", 0.0)
    await still.engine.promoter.step()
    assert list(await still.shelves()) == [f"{Q}ready:echo"]
    assert len(await still.ready()) == CHUNK + 100


async def test_workers_are_told(still: Still) -> None:
    await schedule(still, -10)
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.WAKE)
        assert (await line.get_message(timeout=2))["type"] == "subscribe"
        still.engine.promoter.expect("default", 0.0)
        await still.engine.promoter.step()
        message = await line.get_message(timeout=2)
    told = orjson.loads(message["data"])
    assert told == {"queue": "default", "ready": True, "origin": None}, "our own worker, too"


async def test_what_is_expected_while_it_promotes_is_not_forgotten(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoter, promote = still.engine.promoter, still.engine.shelves.promote

    async def late(queue: str, count: int) -> Promoted:
        promoted = await promote(queue, count)
        await schedule(still, 200)  # after the look, before its answer
        promoter.expect("default", 0.2)
        return promoted

    monkeypatch.setattr(still.engine.shelves, "promote", late)
    promoter.expect("default", 0.0)
    assert await promoter.step() <= 0.2


async def test_what_is_expected_while_redis_is_away_is_promoted_when_it_is_back(
    wired: Still, redis_wire: Wire
) -> None:
    promoter = wired.engine.promoter
    id_ = await schedule(wired, -10)
    await redis_wire.cut()
    promoter.expect("default", 0.0)
    with pytest.raises(QueueUnavailable):
        await promoter.step()
    await redis_wire.mend()
    await wired.redis_is(away=False)
    await promoter.step()
    assert await wired.ready() == [id_]


async def test_a_job_that_is_submitted_for_later_is_expected(still: Still) -> None:
    still.engine.ears.on_due("default", still.engine.pg_clock.now_ms() + 20_000)
    assert 19 < await still.engine.promoter.step() <= 20.1
