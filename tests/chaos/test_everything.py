"""Faults of replicas and servers at once, drawn by a seed: whatever they do breaks no rule.

`CHAOS_SEED` and `CHAOS_S` in the environment choose another draw and another length. The same
seed gives the same faults, but never the same interleaving.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.support.faults import crash_postgres, empty_redis
from tests.support.figures import figures
from tests.support.load import Job
from tests.support.scene import Scene

Fault = Callable[[], Awaitable[None]]

_SEED = int(os.environ.get("CHAOS_SEED", "1"))
_LENGTH_S = float(os.environ.get("CHAOS_S", "20"))
_ANY = 1_000_000  # attempts of stopped replicas may go on beside those that replaced them
_QUICK = {  # so that much happens in little time
    "worker__ttl_s": 3,
    "worker__beat_s": 0.5,
    "worker__drain_grace_s": 1,
    "worker__losses_max": 1000,
    "queue__lease_s": 4,
    "queue__renew_s": 1,
}


@pytest.mark.timeout(_LENGTH_S + 120)
async def test_many_faults_at_once_break_no_rule(scene: Scene) -> None:
    replicas = await scene.fleet.start(3, **_QUICK)
    nemesis = Nemesis(scene, random.Random(_SEED))
    async with scene.load.stream(scene.fleet.urls, 150, _job):
        await nemesis.strike_for(_LENGTH_S)
    for replica in replicas:
        nemesis.revive()
        await replica.ready()
    await scene.end("everything", within_s=60, overlaps_max=_ANY)
    figures(f"everything, seed {_SEED}", **nemesis.struck)
    figures(
        "everything, answers", **{str(k): n for k, n in scene.load.submitted.statuses().items()}
    )


class Nemesis:
    """Strikes replicas and servers at the same time. Replicas that ended are started again."""

    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self._scene = scene
        self._chance = chance
        self._on_replicas: list[Fault] = [
            *(self.kill_replica, self.kill_replica, self.stop_replica, self.end_replica)
        ]
        self._on_servers: list[Fault] = [
            *(scene.flush_redis, self.lose_redis, self.pause_redis),
            *(self.crash_postgres, self.pause_postgres, self.restart_postgres),
        ]
        self.struck: dict[str, int] = {}

    async def strike_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(
            self._strike_until(until, self._on_replicas),
            self._strike_until(until, self._on_servers),
        )

    async def _strike_until(self, until: float, faults: Sequence[Fault]) -> None:
        while time.monotonic() < until:
            fault = self._chance.choice(faults)
            name = getattr(fault, "__name__", "")
            self.struck[name] = self.struck.get(name, 0) + 1
            await fault()
            url = self._chance.choice(self._scene.fleet.urls)
            await self._scene.load.cancel_some(url, 5, self._chance)
            await self._pause(0, 1.5)
            self.revive()

    def revive(self) -> None:
        for replica in self._scene.fleet.replicas:
            if replica.ended:
                replica.start()

    async def kill_replica(self) -> None:
        self._chance.choice(self._scene.fleet.replicas).kill()
        self.revive()
        await self._pause(0, 3)

    async def stop_replica(self) -> None:
        replica = self._chance.choice(self._scene.fleet.replicas)
        replica.pause()
        await self._pause(1, 7)
        replica.resume()

    async def end_replica(self) -> None:
        replica = self._chance.choice(self._scene.fleet.replicas)
        replica.terminate()
        await asyncio.to_thread(replica.wait)

    async def lose_redis(self) -> None:
        redis = self._scene.servers.redis
        redis.kill()
        await self._pause(0, 4)
        empty_redis(redis)
        await asyncio.to_thread(redis.start)

    async def pause_redis(self) -> None:
        redis = self._scene.servers.redis
        await asyncio.to_thread(redis.pause)
        await self._pause(0, 4)
        await asyncio.to_thread(redis.resume)

    async def crash_postgres(self) -> None:
        await crash_postgres(self._scene)

    async def pause_postgres(self) -> None:
        postgres = self._scene.servers.postgres
        await asyncio.to_thread(postgres.pause)
        await self._pause(0.5, 6)
        await asyncio.to_thread(postgres.resume)

    async def restart_postgres(self) -> None:
        postgres = self._scene.servers.postgres
        await asyncio.to_thread(postgres.stop)
        await self._pause(0, 1)
        await asyncio.to_thread(postgres.start)

    async def _pause(self, shortest_s: float, longest_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(shortest_s, longest_s))


def _job(number: int) -> Job:
    chance = random.Random(number)
    failures = chance.choice([0, 0, 0, 0, 1, 2, 3])
    return {
        "kind": "logged" if failures else chance.choice(["logged", "logged", "logged-thread"]),
        "queue": chance.choice(["a", "b", "c"]),
        "priority": chance.randint(0, 9),
        "payload": {"seconds": chance.choice([0, 0, 0.05, 0.3, 1, 2]), "failures": failures},
        "backoff": {"kind": "fixed", "base_s": 0.3},
        "delay_s": chance.choice([0, 0, 0, chance.uniform(0, 4)]),
    }
