"""PostgreSQL restarted, crashed, or standing still under load (reliability.md: F11, F12)."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.faults import crash_postgres
from tests.support.figures import crowded, figures
from tests.support.load import Answers, Job
from tests.support.scene import Scene
from tests.support.waiting import eventually

_REFUSED_MAX_S = 1.0
_RECOVERED_MAX_S = 3.0
_UNDER_WAY_S = 0.2  # requests that were sent so long before may be caught by the fault
_CRASHES = 5

Outage = tuple[float, float]  # when it went and when it was back, in seconds since 1970


@pytest.mark.timeout(90)
async def test_a_restart_of_postgres_loses_nothing_and_runs_nothing_twice(scene: Scene) -> None:
    async with _under_load(scene, longest_s=6):
        went_at = time.time()
        await asyncio.to_thread(scene.servers.postgres.stop)
        await asyncio.sleep(3)
        await asyncio.to_thread(scene.servers.postgres.start)
        back_at = time.time()
        await _serves_again(scene, back_at)
    await _judge(scene, "Postgres restarted", [(went_at, back_at)])


@pytest.mark.timeout(90)
async def test_a_crash_of_postgres_loses_nothing_and_runs_nothing_twice(scene: Scene) -> None:
    outages: list[Outage] = []
    async with _under_load(scene, longest_s=4):
        for _ in range(_CRASHES):
            went_at = time.time()
            await crash_postgres(scene)
            back_at = time.time()
            await _serves_again(scene, back_at)
            outages.append((went_at, back_at))
    await _judge(scene, "Postgres crashed", outages)


@pytest.mark.timeout(120)
async def test_a_pause_of_postgres_loses_nothing_and_runs_nothing_twice(scene: Scene) -> None:
    async with _under_load(scene, longest_s=33):
        went_at = time.time()
        await asyncio.to_thread(scene.servers.postgres.pause)
        await asyncio.sleep(30)
        await asyncio.to_thread(scene.servers.postgres.resume)
        back_at = time.time()
        await _serves_again(scene, back_at)
    await _judge(scene, "Postgres paused", [(went_at, back_at)])


@asynccontextmanager
async def _under_load(scene: Scene, longest_s: float) -> AsyncIterator[None]:
    """Two replicas, short jobs coming in, long ones under way, readers."""

    def short(number: int) -> Job:
        return _logged(0.02 * (number % 50), failures=number % 3)

    urls = [replica.url for replica in await scene.fleet.start(2)]
    long: list[Job] = [_logged(longest_s * (0.5 + n / 200)) for n in range(100)]
    first, *_ = await scene.load.bulk(urls[0], long)
    await scene.load.bulk(urls[0], [_logged(0.01 * (n % 200), n % 3) for n in range(3000)])
    async with scene.load.stream(urls, 250, short), scene.load.looks(urls, 20, f"/v1/jobs/{first}"):
        await scene.started(len(long) + 1000)
        yield


def _logged(seconds: float, failures: int = 0) -> Job:
    soon = {"kind": "fixed", "base_s": 0.2}
    return {
        "kind": "logged",
        "payload": {"seconds": seconds, "failures": failures},
        "backoff": soon,
    }


async def _serves_again(scene: Scene, back_at: float) -> None:
    """Returns when jobs are accepted, shown, run and settled again."""

    async def look() -> bool:
        load, now = scene.load, time.time()
        accepted = 201 in load.submitted.between(back_at, now).statuses()
        shown = 200 in load.looked.between(back_at, now).statuses()
        return accepted and shown and any(e.t > back_at for e in scene.log.starts())

    await eventually(look, "jobs are accepted, shown and run again", 15)
    await eventually(lambda: _settled_since(scene, back_at), "jobs are settled again", 15)


async def _settled_since(scene: Scene, at: float) -> bool:
    async with scene.connected() as con:
        return bool(
            await con.fetchval(
                "SELECT EXISTS (SELECT 1 FROM attempts WHERE finished_at > to_timestamp($1))", at
            )
        )


async def _judge(scene: Scene, title: str, outages: Sequence[Outage]) -> None:
    report = await scene.end(title)
    settled = [a["finished_at"] for a in await scene.attempts()]
    began = [event.t for event in scene.log.starts()]
    load = scene.load
    for went_at, back_at in outages:
        recovered = {
            "accepts": load.submitted.first_good(back_at) - back_at,
            "shows": load.looked.first_good(back_at) - back_at,
            "starts": min(t for t in began if t > back_at) - back_at,
            "settles": min(t for t in settled if t > back_at) - back_at,
        }
        submitted = load.submitted.between(went_at - _UNDER_WAY_S, back_at)
        looked = load.looked.between(went_at - _UNDER_WAY_S, back_at)
        figures(f"{title} for {back_at - went_at:.2f} s, again after", **recovered)
        figures(f"{title}, submissions", slowest=submitted.slowest_s(), **_named(submitted))
        figures(f"{title}, looks", slowest=looked.slowest_s(), **_named(looked))
        assert max(recovered.values()) <= crowded(_RECOVERED_MAX_S)
        assert max(submitted.slowest_s(), looked.slowest_s()) <= crowded(_REFUSED_MAX_S)
        assert submitted.statuses().keys() | looked.statuses().keys() <= {200, 201, 503}
    adopted = [
        await scene.fleet.metric(one, "penstock_adopted_total") for one in scene.fleet.replicas
    ]
    figures(title, adopted=sum(adopted))
    assert report.outcomes["succeeded"] == report.jobs
    assert report.outcomes.keys() == {"succeeded", "failed"}  # nothing lost, nothing released


def _named(answers: Answers) -> dict[str, int]:
    return {str(status): count for status, count in answers.statuses().items()}
