"""`kill -9` of who delivers, in mid-batch: nothing is missing, and what comes twice says so."""

import asyncio
from collections import Counter
from pathlib import Path

import orjson
from aiohttp import web

from tests.egress.receiver import Receiver, receiver
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.scene import Scene, staged
from tests.support.servers import Servers
from tests.support.waiting import eventually

KILLS = 4
JOBS = 60
QUICK = {"worker__ttl_s": 3, "worker__beat_s": 0.5, "queue__lease_s": 4, "queue__renew_s": 1}


async def slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return web.Response()


async def test_a_relay_that_is_killed_loses_nothing(
    servers: Servers, dsn: str, redis_url: str, workplace: Path
) -> None:
    async with staged(servers, dsn, workplace) as scene, receiver(slow) as there:
        fleet = scene.fleet
        relay, _ = await fleet.start(1, **QUICK) + await fleet.start(
            1, **QUICK, roles='["api", "scheduler", "worker"]'
        )
        ids = await submitted(fleet, there)
        for n in range(KILLS):
            await heard(there, JOBS * (n + 1) // (KILLS + 2))
            relay.kill()
            await time_passes(scene)
            relay.start()
            await relay.ready()
        await everything_is_over(scene)
    seen = Counter(one.headers["webhook-id"] for one in there.seen)
    told = {orjson.loads(one.body)["data"]["id"]: one.headers["webhook-id"] for one in there.seen}
    assert told.keys() == ids, "nothing is missing"
    assert len(seen) == len(ids), "each has one id, however often it came"
    assert sum(seen.values()) <= len(ids) + KILLS * 12, "a kill repeats what was claimed at most"


async def submitted(fleet: Fleet, there: Receiver) -> set[str]:
    wish = [{"on": ["succeeded"], "webhook": there.url}]
    jobs = [{"kind": "echo", "notify": wish} for _ in range(JOBS)]
    async with Api(fleet.urls[1]) as api:
        status, answer = await api.call("POST", "/v1/jobs/batch", {"jobs": jobs})
    assert status == 201, answer
    return {item["id"] for item in answer["items"]}


async def heard(there: Receiver, count: int) -> None:
    async def look() -> bool:
        return len(there.seen) >= count

    await eventually(look, f"{count} webhooks have come", 30, every_s=0.005)


async def time_passes(scene: Scene) -> None:
    """The lease of who died is over."""
    async with scene.connected() as con:
        await con.execute("UPDATE effects SET due_at = clock_timestamp() WHERE lease IS NOT NULL")


async def everything_is_over(scene: Scene) -> None:
    async with scene.connected() as con:

        async def look() -> bool:
            outcomes = await con.fetch("SELECT outcome FROM deliveries")
            return [row[0] for row in outcomes] == ["delivered"] * JOBS

        await eventually(look, f"{JOBS} are delivered", 30)
        assert not await con.fetchval("SELECT count(*) FROM effects")
