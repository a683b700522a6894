"""The survey: the net under all wake-ups."""

import pytest

from penstock.queue.shelves import member
from tests.support import making
from tests.support.still import Still
from tests.support.wire import Wire


class Heard:
    def __init__(self, still: Still) -> None:
        surveyor = still.engine.surveyor
        self.ready: list[str] = []
        self.due: dict[str, float] = {}
        self.expired: list[str] = []
        surveyor.on_ready = self.ready.extend
        surveyor.on_due = self.due.__setitem__
        surveyor.on_expired = self.expired.append


async def test_it_reports_what_stands_on_the_shelves(still: Still) -> None:
    engine, now_ms = still.engine, await still.redis.now_ms()
    for queue in ("ready", "foreign", "later", "over", "leased", "empty"):
        await engine.queues.add([queue])
        await engine.shelves.mark(queue)
    await engine.queues.add(["unmarked"])
    id_ = making.job_id()
    await still.redis.put(
        {
            "{q:ready}:ready:echo": {id_: 1},
            "{q:foreign}:ready:nobodys": {id_: 1},
            "{q:later}:scheduled": {member(making.due()): now_ms + 30_000},
            "{q:over}:leases": {id_: now_ms - 1},
            "{q:leased}:leases": {id_: now_ms + 30_000},
            "{q:unmarked}:ready:echo": {id_: 1},
        }
    )
    await engine.book.step()
    heard = Heard(still)
    pause = await engine.surveyor.step()
    assert sorted(heard.ready) == ["ready", "unmarked"], "kinds that we don't serve aside"
    assert heard.due == {"later": pytest.approx(30, abs=1)}
    assert heard.expired == ["over"]
    assert engine.missing.take() == {"unmarked"}
    assert 1.5 <= pause <= 2.6


async def test_a_wake_up_that_was_missed_costs_a_round_only(still: Still) -> None:
    """Nobody told this replica of anything; it finds out by itself."""
    engine, now_ms = still.engine, await still.redis.now_ms()
    (ready,) = await still.db.submit(kind="gated")
    (leased,) = await still.db.submit()
    (early,) = await still.db.submit(delay_s=60)
    early_member = member(making.due(id=early))
    await still.redis.put(
        {
            "{q:default}:ready:gated": {ready: 1},
            "{q:default}:scheduled": {early_member: now_ms - 1},
            "{q:default}:leases": {leased: now_ms - 1},
        }
    )
    await engine.queues.add(["default"])
    await engine.book.step()
    engine.worker.wake.clear()
    await engine.surveyor.step()
    for loop in (engine.worker, engine.promoter, engine.renewer, engine.missing):
        assert loop.wake.is_set()
    await engine.worker.step()
    assert engine.pool.find(ready) is not None
    await engine.promoter.step()
    await engine.renewer.return_expired()
    await engine.enqueuer.drained()
    assert set(await still.ready()) == {leased, early}


async def test_many_queues_are_surveyed_seldom(still: Still) -> None:
    names = [f"q{n}" for n in range(450)]
    await still.engine.queues.add(names)
    await still.engine.book.step()
    await still.engine.surveyor.step()
    assert still.engine.missing.take() == set(names)


async def test_what_nobody_can_see_is_not_reported_as_missing(
    wired: Still, redis_wire: Wire
) -> None:
    await wired.submit()
    wired.engine.missing.take()
    await wired.engine.book.step()
    await redis_wire.cut()
    with pytest.raises(Exception, match="out of reach"):
        await wired.engine.surveyor.step()
    assert wired.engine.missing.take() == set()
