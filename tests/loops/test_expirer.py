"""The expirer: what was not started in time ends, once, and is told."""

from tests.support.still import Q, Still

PAST = "UPDATE job_due SET expires_at = clock_timestamp() WHERE expires_at IS NOT NULL"


async def test_what_has_expired_ends_and_leaves_its_shelf(still: Still) -> None:
    (kept,) = await still.submit()
    expiring = await still.submit(3, ttl_s=3600.0)
    await still.db.session.execute(PAST)
    assert await still.engine.expirer.step() > 0
    await still.engine.enqueuer.drained()
    assert await still.db.places([kept, *expiring]) == ["ready", *["cancelled"] * 3]
    assert await still.ready() == [kept]
    assert still.metric("jobs_ended_total", queue="default", state="cancelled") == 3


async def test_a_full_step_is_followed_at_once(still: Still) -> None:
    await still.submit(600, ttl_s=3600.0)
    await still.db.session.execute(PAST)
    assert await still.engine.expirer.step() == 0
    assert await still.engine.expirer.step() > 0
    assert await still.db.count("job_ended") == 600
    await still.engine.enqueuer.drained()
    assert Q + "ready:echo" not in await still.shelves()


async def test_an_expired_job_that_is_claimed_is_not_put_back(still: Still) -> None:
    (id_,) = await still.submit(ttl_s=3600.0)
    await still.db.session.execute(PAST)
    await still.engine.worker.step()
    await still.engine.enqueuer.drained()
    assert await still.db.places([id_]) == ["ready"]
    assert await still.shelves() == {}, "else it would be claimed again and again"
    await still.engine.expirer.step()
    assert await still.db.places([id_]) == ["cancelled"]


async def test_those_who_wait_hear_of_it(still: Still) -> None:
    (id_,) = await still.submit(ttl_s=3600.0)
    await still.db.session.execute(PAST)
    told: list[bytes] = []
    still.engine.sequel.on_ended = told.extend
    await still.engine.expirer.step()
    assert told == [id_]


async def test_redis_away_ends_them_all_the_same(still: Still) -> None:
    (id_,) = await still.submit(ttl_s=3600.0)
    await still.db.session.execute(PAST)
    await still.rooms.redis.close()
    await still.engine.expirer.step()
    assert await still.db.places([id_]) == ["cancelled"]
