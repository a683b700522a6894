"""Leases: ours are kept, those that are over go back in line if their jobs are still due."""

import pytest

from penstock.queue import keys
from penstock.queue.shelves import CHUNK
from penstock.settings import Settings
from tests.support import making
from tests.support.making import SUCCESS
from tests.support.still import Q, Still, changed, standing


async def expiries(still: Still, queue: str = "default") -> dict[bytes, float]:
    return (await still.shelves()).get(f"{{q:{queue}}}:leases", {})


async def expire(still: Still, *ids: bytes) -> None:
    await still.redis.put({f"{Q}leases": dict.fromkeys(ids, 1.0)})


async def test_what_we_hold_is_prolonged_and_nothing_else(still: Still) -> None:
    held = await still.submit(2, kind="gated")
    (elsewhere,) = await still.submit(kind="gated", queue="other")
    await still.engine.worker.step()
    foreign = making.job_id()
    for queue in ("default", "other"):
        leases = dict.fromkeys(await expiries(still, queue), 1.0)
        await still.redis.put({f"{{q:{queue}}}:leases": leases | {foreign: 1.0}})
    assert await still.engine.renewer.renew() == 3.0
    now_ms = await still.redis.now_ms()
    for queue, ids in (("default", held), ("other", [elsewhere])):
        found = await expiries(still, queue)
        assert found.pop(foreign) == 1.0
        assert found.keys() == set(ids)
        assert all(abs(at - now_ms - 10_000) < 1000 for at in found.values())


async def test_a_lease_that_stands_no_more_is_not_made_anew(still: Still) -> None:
    first, second = await still.submit(2, kind="gated")
    await still.engine.worker.step()
    await still.redis.raw.zrem(keys.leases("default"), first)
    await still.engine.renewer.renew()
    assert await still.leases() == {second}


async def test_what_is_over_goes_back_in_line_if_it_is_still_due(still: Still) -> None:
    engine = still.engine
    (running,) = await still.start()
    (over,) = await still.start()
    await still.db.settle(over, SUCCESS)
    due, paused_later, live = await still.submit(3)
    await engine.shelves.claim("default", ["echo"], 3, 10.0)
    gone = making.job_id()
    await expire(still, running.id, over.id, due, paused_later, gone)
    engine.renewer.expect_expired("default")
    assert engine.renewer.wake.is_set()
    assert await engine.renewer.return_expired() == 60.0
    await engine.enqueuer.drained()
    assert await still.ready() == [due, paused_later]
    assert await still.leases() == {live}, "what runs needs no lease: job_running has it"


async def test_only_queues_that_were_reported_are_looked_at(still: Still) -> None:
    await still.submit(1)
    await still.engine.shelves.claim("default", ["echo"], 1, 0.0)
    await still.engine.renewer.return_expired()
    await still.engine.enqueuer.drained()
    assert await still.ready() == []


async def test_a_pile_of_expired_leases_is_taken_in_rounds(still: Still) -> None:
    ids = await still.db.submit(CHUNK + 200)
    await expire(still, *ids)
    for left in (200, 0):
        still.engine.renewer.expect_expired("default")
        await still.engine.renewer.return_expired()
        await still.engine.enqueuer.drained()
        assert len(await still.leases()) == left
    assert set(await still.ready()) == set(ids)


async def test_a_claim_of_a_worker_that_died_is_claimed_again(
    still_settings: Settings, dsn: str, redis_url: str
) -> None:
    short = changed(still_settings, queue={"lease_s": 0.2, "renew_s": 0.05})
    async with standing(short, dsn, redis_url) as still:
        (id_,) = await still.submit(kind="gated")
        await still.redis.shelves.claim("default", ["gated"], 1, 0.0)  # and it dies
        await still.engine.book.step()
        await still.engine.surveyor.step()
        await still.engine.renewer.return_expired()
        await still.engine.enqueuer.drained()
        await still.engine.worker.step()
        assert still.engine.pool.find(id_) is not None


async def test_the_clock_of_redis_is_read(still: Still) -> None:
    still.engine.redis_clock.observe(0, 0, 0)
    assert await still.engine.renewer.read_clock() == 1.0
    assert still.engine.redis_clock.now_ms() == pytest.approx(await still.redis.now_ms(), abs=500)
