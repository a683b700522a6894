"""Redis flushed, or away and back empty: it is a hint, so it costs time only (F5, F6, F7)."""

import asyncio
import time

import pytest

from tests.support.faults import empty_redis
from tests.support.figures import crowded, figures
from tests.support.load import Job
from tests.support.scene import Scene, largest_gap, rate
from tests.support.waiting import eventually

_FLUSHES = 6
_GAP_MAX_S = 2.0
_PAUSE_S = 5.0
_AWAY_S = 30.0
_BEFORE = 25_000  # starts with Redis, and as many at most without it, for the two rates
_BACKLOG = 80_000


@pytest.mark.timeout(90)
async def test_flushing_redis_under_load_loses_nothing_and_dispatch_goes_on(scene: Scene) -> None:
    replicas = await scene.fleet.start(2, worker__concurrency=40)
    jobs: list[Job] = [{"kind": "logged", "payload": {"seconds": 0.1}}] * 7500
    later: list[Job] = [{"kind": "logged", "delay_s": 0.01 * n} for n in range(800)]
    backlog = set(await scene.load.bulk(replicas[0].url, jobs + later))
    first_flush_at = time.time()
    async with scene.load.stream(scene.fleet.urls, 50, lambda _: {"kind": "logged"}):
        for _ in range(_FLUSHES):
            await scene.flush_redis()
            await asyncio.sleep(1.2)
            assert await scene.live() > 0
    report = await scene.end("FLUSHALL")
    own = [event.t for event in scene.log.starts() if event.job in backlog]
    gap = largest_gap([first_flush_at, *(t for t in own if t > first_flush_at)])
    figures("FLUSHALL", flushes=_FLUSHES, gap=gap)
    assert gap < crowded(_GAP_MAX_S)
    assert report.outcomes == {"succeeded": report.jobs}


@pytest.mark.timeout(60)
async def test_what_redis_forgot_is_found_behind_a_kind_that_nobody_serves(scene: Scene) -> None:
    url = (await scene.fleet.start(1))[0].url
    unserved = await scene.load.bulk(url, [{"kind": "nobody"}] * 1500)
    await scene.pause("default")
    await scene.load.bulk(url, [{"kind": "logged"}] * 50)
    await scene.forget_ready("default", "logged")  # the queue's marker stands, so no rebuild
    await scene.pause("default", paused=False)
    await scene.started(50, within_s=10)
    async with scene.connected() as con:
        await con.execute("DELETE FROM job_due WHERE kind = 'nobody'")
        await con.execute(
            "DELETE FROM trail WHERE job_id IN (SELECT job_id FROM jobs WHERE kind = 'nobody')"
        )
        await con.execute("DELETE FROM jobs WHERE kind = 'nobody'")
    scene.load.log.forget(unserved)
    await scene.end("Redis forgot 50")


@pytest.mark.timeout(90)
async def test_a_pause_of_redis_loses_nothing_and_dispatch_goes_on(scene: Scene) -> None:
    replicas = await scene.fleet.start(2, worker__concurrency=40)
    jobs: list[Job] = [{"kind": "logged", "payload": {"seconds": 0.1}}] * 8000
    backlog = set(await scene.load.bulk(replicas[0].url, jobs))
    async with scene.load.stream(scene.fleet.urls, 50, lambda _: {"kind": "logged"}):
        await scene.started(1000)
        paused_at = time.time()
        await asyncio.to_thread(scene.servers.redis.pause)
        await asyncio.sleep(_PAUSE_S)
        resumed_at = time.time()
        await asyncio.to_thread(scene.servers.redis.resume)
        assert await scene.live() > 0
    report = await scene.end("Redis paused")
    own = [event.t for event in scene.log.starts() if event.job in backlog]
    times = [t for t in own if paused_at < t < resumed_at]
    gap = largest_gap([paused_at, *times, resumed_at])
    figures("Redis paused", gap=gap, slowest_answer_s=scene.load.submitted.slowest_s())
    assert gap < crowded(_GAP_MAX_S)
    assert scene.load.submitted.statuses().keys() == {201}
    assert report.outcomes == {"succeeded": report.jobs}


@pytest.mark.timeout(180)
async def test_without_redis_for_30_s_jobs_go_on_at_half_the_rate_at_least(scene: Scene) -> None:
    url = (await scene.fleet.start(2))[0].url
    await scene.pause("default")
    await scene.load.bulk(url, [{"kind": "logged"}] * _BACKLOG)
    await scene.pause("default", paused=False)
    await scene.started(_BEFORE, within_s=60)
    went_at = time.time()
    scene.servers.redis.kill()
    async with scene.load.stream(scene.fleet.urls, 20, lambda _: {"kind": "logged"}):
        await asyncio.sleep(_AWAY_S)
        back_at = time.time()
        empty_redis(scene.servers.redis)
        await asyncio.to_thread(scene.servers.redis.start)
        await eventually(lambda: _claims_from_redis(scene), "Redis is used again", 5)
        await scene.load.bulk(url, [{"kind": "logged"}] * 2000)
    report = await scene.end("Redis away")
    starts = [event.t for event in scene.log.starts()]
    before = [t for t in starts if t < went_at]
    away = [t for t in starts if went_at <= t < back_at]
    backlog = away[: _BACKLOG - len(before)]
    trickle = [t for t in starts if backlog[-1] < t < back_at]
    figures(
        "Redis away",
        before_per_s=rate(before),
        away_per_s=rate([went_at, *backlog]),
        away_jobs=len(backlog),
        trickle_gap_max_s=largest_gap(trickle),
        answers=scene.load.submitted.statuses(),
        slowest_answer_s=scene.load.submitted.slowest_s(),
    )
    assert rate([went_at, *backlog]) >= rate(before) / 2
    assert report.outcomes == {"succeeded": report.jobs}
    assert scene.load.submitted.statuses().keys() == {201}
    assert largest_gap(trickle) < crowded(_GAP_MAX_S)


async def _claims_from_redis(scene: Scene) -> bool:
    found = [
        await scene.fleet.metric(r, "penstock_redis_breaker_open") for r in scene.fleet.replicas
    ]
    return sum(found) == 0
