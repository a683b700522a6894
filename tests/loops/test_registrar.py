"""Who lives under which name: registered, kept by beats, condemned, named anew."""

import asyncio

import pytest

from penstock import clock
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.settings import Settings
from penstock.store.workers import Beat
from tests.support.gates import let_go
from tests.support.still import Still, changed, standing
from tests.support.waiting import eventually
from tests.support.wire import Wire

CONDEMN = "UPDATE workers SET condemned_at = clock_timestamp() WHERE worker_id = $1"


def beat(*, alive: bool = True, cancel: tuple[JobId, ...] = ()) -> Beat:
    return Beat(alive, 1_795_000_000.0, 0.0, 0.0, cancel)


async def names(still: Still) -> list[bytes]:
    rows = await still.db.session.fetch("SELECT worker_id FROM workers ORDER BY started_at")
    return [row[0] for row in rows]


async def test_a_replica_is_entered_once(still: Still) -> None:
    me = still.engine.me
    assert await names(still) == [me.worker]
    assert me.may_claim
    assert await still.engine.registrar.step() == 60.0
    assert await names(still) == [me.worker]
    (row,) = await still.db.session.fetch("SELECT * FROM workers")
    assert row["slots"] == 6
    assert {"echo", "gated", "gated-thread"} <= set(row["kinds"])
    life = row["expires_at"] - row["beat_at"]
    assert life.total_seconds() == pytest.approx(10)


async def test_the_condemned_stop_all_they_run_and_take_a_new_name(still: Still) -> None:
    engine, me, old = still.engine, still.engine.me, still.engine.me.worker
    ids = await still.submit(3, kind="gated")
    await engine.worker.step()
    engine.registrar.hear_beat(old, beat(alive=False))
    assert not me.may_claim
    assert engine.registrar.wake.is_set()
    assert not engine.held.runs, "their leases are ours no more"
    await still.in_places(ids, "ready")
    assert engine.pool.busy() == []
    for id_ in ids:
        assert await still.outcomes(id_) == ["lost"]
    await engine.registrar.step()
    assert me.worker != old
    assert await names(still) == [old, me.worker]
    assert me.may_claim


async def test_endings_under_the_old_name_are_stale(still: Still) -> None:
    """The reaper of another replica came before us."""
    engine, old = still.engine, still.engine.me.worker
    (id_,) = await still.submit(kind="gated")
    await engine.worker.step()
    await still.db.session.execute(CONDEMN, old)
    await engine.reaper.step()
    engine.registrar.hear_beat(old, beat(alive=False))

    async def stale() -> bool:
        return still.metric("stale_settlements_total") == 1

    await eventually(stale, "its ending is stale", every_s=0.01)
    assert await still.outcomes(id_) == ["lost"]
    await engine.registrar.step()
    await engine.enqueuer.drained()
    await engine.worker.step()
    let_go(id_)
    await still.in_places([id_], "succeeded")


async def test_a_beat_of_an_old_name_is_passed_over(still: Still) -> None:
    (id_,) = await still.submit(kind="gated")
    await still.engine.worker.step()
    still.engine.registrar.hear_beat(b"old", beat(alive=False, cancel=(id_,)))
    assert still.engine.me.may_claim
    assert [run.stop for run in still.engine.pool.busy()] == [None]


async def test_a_beat_tells_of_cancels(still: Still) -> None:
    """Redis was away, and its message never came."""
    stays, goes = await still.submit(2, kind="gated")
    await still.engine.worker.step()
    await still.db.jobs.cancel_running(goes)
    still.engine.registrar.hear_beat(still.engine.me.worker, beat(cancel=(goes,)))
    await still.in_places([goes], "cancelled")
    assert [run.job.id for run in still.engine.pool.busy()] == [stays]


async def test_who_drains_takes_no_new_name(still: Still) -> None:
    still.engine.registrar.hear_beat(still.engine.me.worker, beat(alive=False))
    still.engine.me.draining = True
    await still.engine.registrar.step()
    assert not still.engine.me.registered
    assert len(await names(still)) == 1


async def test_a_registration_that_fails_is_made_anew(wired: Still, postgres_wire: Wire) -> None:
    engine, may_claim = wired.engine, list[bool]()
    engine.registrar.hear_beat(engine.me.worker, beat(alive=False))
    await postgres_wire.cut()
    with pytest.raises(StoreUnavailable):
        await engine.registrar.step()
    may_claim.append(engine.me.may_claim)
    await postgres_wire.mend()
    await engine.registrar.step()
    may_claim.append(engine.me.may_claim)
    assert may_claim == [False, True]
    assert engine.me.worker in await names(wired)


# The keeper: a thread of its own.


@pytest.fixture
def quick(still_settings: Settings) -> Settings:
    return changed(still_settings, worker={"beat_s": 0.05, "ttl_s": 1.0})


async def beats(still: Still, count: int = 3) -> None:
    """Returns after so many more beats."""
    for _ in range(count):
        last = still.engine.me.beat_at

        async def look(last: float = last) -> bool:
            return still.engine.me.beat_at > last

        await eventually(look, "the keeper beats", within_s=3, every_s=0.005)


async def test_beats_prolong_our_life_while_the_event_loop_is_blocked(
    quick: Settings, dsn: str, redis_url: str
) -> None:
    async with standing(quick, dsn, redis_url) as still:
        still.engine.keeper.start()
        await still.engine.keeper.tick()
        await beats(still)
        before = still.engine.me.beat_at
        block_until = clock.monotonic() + 0.3
        while clock.monotonic() < block_until:
            pass
        assert still.engine.me.beat_at > before + 0.1
        expires_in = await still.db.session.fetchval(
            "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM workers"
        )
        assert expires_in > 0.7
        assert still.engine.me.may_claim


async def test_the_keeper_tells_that_we_were_condemned(
    quick: Settings, dsn: str, redis_url: str
) -> None:
    async with standing(quick, dsn, redis_url) as still:
        engine, old = still.engine, still.engine.me.worker
        (id_,) = await still.submit(kind="gated")
        await engine.worker.step()
        engine.keeper.start()
        await beats(still, 1)
        await still.db.session.execute(CONDEMN, old)
        async with asyncio.timeout(3):
            await engine.registrar.wake.wait()
        await still.in_places([id_], "ready")
        assert await still.outcomes(id_) == ["lost"]
        await engine.registrar.step()
        await beats(still)
        assert await names(still) == [old, engine.me.worker]


async def test_the_keeper_brings_cancels(quick: Settings, dsn: str, redis_url: str) -> None:
    async with standing(quick, dsn, redis_url) as still:
        (id_,) = await still.submit(kind="gated")
        await still.engine.worker.step()
        still.engine.keeper.start()
        await still.db.jobs.cancel_running(id_)
        await still.in_places([id_], "cancelled")


async def test_the_keeper_goes_on_after_postgres_was_away(
    quick: Settings, wired: Still, postgres_wire: Wire
) -> None:
    wired.engine.keeper._beat_s = 0.05
    wired.engine.keeper.start()
    await beats(wired)
    await postgres_wire.cut()
    last = wired.engine.me.beat_at
    await postgres_wire.mend()
    await beats(wired)
    assert wired.engine.me.beat_at > last
    assert wired.engine.me.may_claim
