"""I8: Redis is held against Postgres, both of them real."""

import pytest

from penstock.domain.ids import JobId
from penstock.queue import keys
from tests.support import making
from tests.support.checker import Violations, index
from tests.support.still import Still
from tests.support.turned import database_of_the_module, dsn, still, still_settings

__all__ = ["database_of_the_module", "dsn", "still", "still_settings"]

READY, LEASES = keys.ready("default", ["echo"])[0], keys.leases("default")
SCHEDULED = keys.scheduled("default")


async def held(still: Still, within_s: float = 0.3, **kinds: list[str]) -> None:
    url = still.engine._settings.redis.url.get_secret_value()
    await index.converges(still.db.session, url, within_s, **kinds)


async def a_line(still: Still) -> tuple[JobId, JobId, JobId]:
    """One that is ready, one that is to come, one that runs."""
    (runs,) = await still.start(1)
    (ready,) = await still.submit()
    (later,) = await still.submit(delay_s=60.0)
    await held(still)
    return ready, later, runs.id


async def test_what_is_due_must_be_in_line_or_leased(still: Still) -> None:
    ready, _, _ = await a_line(still)
    await still.redis.raw.zrem(READY, ready)
    with pytest.raises(Violations, match="I8 what is due is in line or leased"):
        await held(still)
    await held(still, kinds=["another"])  # nobody serves it
    await still.redis.raw.zadd(LEASES, {ready: 1})
    await held(still)


async def test_what_is_to_come_must_be_on_the_scheduled_shelf(still: Still) -> None:
    await a_line(still)
    await still.redis.raw.delete(SCHEDULED)
    with pytest.raises(Violations, match="I8 what is to come is on the scheduled shelf"):
        await held(still)


async def test_what_stands_on_a_shelf_must_be_a_live_job(still: Still) -> None:
    await a_line(still)
    await still.redis.raw.zadd(LEASES, {making.job_id(): 1})
    with pytest.raises(Violations, match="I8 what stands on a shelf is live"):
        await held(still)


async def test_nothing_may_stand_on_two_shelves(still: Still) -> None:
    ready, _, _ = await a_line(still)
    await still.redis.raw.zadd(LEASES, {ready: 1})
    with pytest.raises(Violations, match="I8 nothing stands on two shelves"):
        await held(still)


async def test_what_runs_must_be_in_no_line(still: Still) -> None:
    _, _, runs = await a_line(still)
    await still.redis.raw.zrem(LEASES, runs)
    await held(still)  # a lease of what runs may be lost
    await still.redis.raw.zadd(READY, {runs: 1})
    with pytest.raises(Violations, match="I8 what runs is in no line"):
        await held(still)


async def test_a_job_of_another_queue_is_caught(still: Still) -> None:
    ready, _, _ = await a_line(still)
    await still.redis.raw.zadd(keys.ready("other", ["echo"])[0], {ready: 1})
    with pytest.raises(Violations, match="I8 a shelf has its own queue's jobs"):
        await held(still)


async def test_what_is_mended_meanwhile_is_no_offence(still: Still) -> None:
    ready, _, _ = await a_line(still)
    await still.redis.raw.zrem(READY, ready)
    still.engine.missing.report(["default"])
    await still.engine.reconciler.step()
    await held(still)
