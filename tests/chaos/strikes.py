"""What each fault does: strikes, lasts, and undoes itself. `nemesis.py` names and draws them."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import asyncpg
import redis

from penstock.dev.postgres import EmbeddedPostgres
from tests.support.checker import Drained
from tests.support.faults import crash_postgres, empty_redis
from tests.support.load import Request
from tests.support.ports import free_port
from tests.support.proxy import Fault, Way, sometimes
from tests.support.replica import ReplicaProcess
from tests.support.scene import Scene
from tests.support.waiting import eventually
from tests.support.wire import Asked, commit, execute

_BLOCKED_S = 5.0
_BOOT_S = 120.0  # it may have to wait for PostgreSQL
_GRACE_S = 25.0  # of a drain, by default
_ANSWERS_CUT = 0.3  # of the requests that may have changed something
_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock'
"""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, drawn. `victim`: the number of a replica; `seconds`: how long it lasts, where that
    can be said; `chance`: for what else it draws."""

    fault: str
    victim: int
    seconds: float
    pause_s: float  # until the next one of its lane
    chance: random.Random


Act = Callable[[Scene, Strike], Awaitable[None]]


def victim(scene: Scene, strike: Strike) -> ReplicaProcess:
    return scene.fleet.replicas[strike.victim % len(scene.fleet.replicas)]


async def kill(scene: Scene, strike: Strike) -> None:
    one = victim(scene, strike)
    one.kill()
    await asyncio.sleep(strike.seconds)
    one.start()


async def terminate(scene: Scene, strike: Strike) -> None:
    """Of one that serves: who is only being started has nothing to hand back."""
    one = victim(scene, strike)
    await eventually(partial(asyncio.to_thread, one.is_live), "it serves", _BOOT_S)
    at = time.time()
    one.terminate()
    status = await asyncio.to_thread(one.wait, 120)
    grace_s = float(one.environ.get("PENSTOCK_WORKER__DRAIN_GRACE_S", _GRACE_S))
    scene.drains.append(Drained(one.pid, at, time.time(), status, grace_s))
    one.start()


async def stop(scene: Scene, strike: Strike) -> None:
    one = victim(scene, strike)
    one.pause()
    await asyncio.sleep(strike.seconds)
    one.resume()


async def block(scene: Scene, strike: Strike) -> None:
    """One job that blocks the event loop of whoever runs it."""
    job = {"kind": "blocking", "payload": {"seconds": _BLOCKED_S}}
    await scene.load.submit(victim(scene, strike).url, Request([job], is_batch=False))
    await asyncio.sleep(_BLOCKED_S)


async def restart_postgres(scene: Scene, strike: Strike) -> None:
    await asyncio.to_thread(scene.servers.postgres.stop)
    await asyncio.sleep(strike.seconds)
    await asyncio.to_thread(scene.servers.postgres.start)


async def abort_postgres(scene: Scene, strike: Strike) -> None:
    """`pg_ctl stop -m immediate`: it recovers from its log at the next start."""
    postgres: EmbeddedPostgres = scene.servers.postgres
    os.kill(postgres.pid, signal.SIGQUIT)

    async def has_ended() -> bool:
        return not postgres.running

    await eventually(has_ended, "Postgres has ended", 20)
    await asyncio.sleep(strike.seconds)
    await asyncio.to_thread(postgres.start)


async def kill_backend(scene: Scene, _strike: Strike) -> None:
    await crash_postgres(scene)


async def terminate_sessions(scene: Scene, _strike: Strike) -> None:
    con = await asyncpg.connect(scene.servers.postgres.dsn)
    try:
        await con.execute(_SESSIONS)
    finally:
        await con.close()


async def pause_postgres(scene: Scene, strike: Strike) -> None:
    await asyncio.to_thread(scene.servers.postgres.pause)
    await asyncio.sleep(strike.seconds)
    await asyncio.to_thread(scene.servers.postgres.resume)


async def flush_redis(scene: Scene, _strike: Strike) -> None:
    await _redis(scene, "FLUSHALL")


async def flush_scripts(scene: Scene, _strike: Strike) -> None:
    await _redis(scene, "SCRIPT", "FLUSH")


async def lose_redis(scene: Scene, strike: Strike) -> None:
    """It comes back empty."""
    server = scene.servers.redis
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(strike.seconds)
    empty_redis(server)
    await asyncio.to_thread(server.start)


async def kill_redis(scene: Scene, strike: Strike) -> None:
    """It comes back with what it had written down: up to a second old."""
    await asyncio.to_thread(scene.servers.redis.kill)
    await asyncio.sleep(strike.seconds)
    await asyncio.to_thread(scene.servers.redis.start)


async def pause_redis(scene: Scene, strike: Strike) -> None:
    await asyncio.to_thread(scene.servers.redis.pause)
    await asyncio.sleep(strike.seconds)
    await asyncio.to_thread(scene.servers.redis.resume)


async def fill_redis(scene: Scene, strike: Strike) -> None:
    """It refuses what would need memory."""
    await _redis(scene, "CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(strike.seconds)
    await _redis(scene, "CONFIG", "SET", "maxmemory", "0")


async def demote_redis(scene: Scene, strike: Strike) -> None:
    """It is somebody's replica and refuses writes."""
    await _redis(scene, "REPLICAOF", "127.0.0.1", str(free_port()))
    await asyncio.sleep(strike.seconds)
    await _redis(scene, "REPLICAOF", "NO", "ONE")


async def kill_clients(scene: Scene, strike: Strike) -> None:
    await _redis(scene, "CLIENT", "KILL", "TYPE", strike.chance.choice(["normal", "pubsub"]))


async def _redis(scene: Scene, *words: str) -> None:
    with redis.Redis.from_url(scene.servers.redis.url) as client:
        await asyncio.to_thread(client.execute_command, *words)


async def heal_servers(scene: Scene) -> None:
    """Whatever was done to them, they serve afterwards."""
    for server in (scene.servers.postgres, scene.servers.redis):
        await asyncio.to_thread(server.resume)
        await asyncio.to_thread(server.start)
    await _redis(scene, "CONFIG", "SET", "maxmemory", "0")
    await _redis(scene, "REPLICAOF", "NO", "ONE")


def on_link(dependency: str, fault_of: Callable[[random.Random], Fault]) -> Act:
    """A proxy's fault between one replica and one dependency."""

    async def act(scene: Scene, strike: Strike) -> None:
        proxy = victim(scene, strike).proxies[dependency]
        proxy.apply(fault_of(strike.chance))
        await asyncio.sleep(strike.seconds)
        proxy.apply(Fault())

    return act


def resets(dependency: str) -> Act:
    """The connections that stand are reset, again and again; new ones get through."""

    async def act(scene: Scene, strike: Strike) -> None:
        proxy = victim(scene, strike).proxies[dependency]
        lasts = strike.seconds
        while lasts > 0:
            proxy.reset()
            pause_s = strike.chance.uniform(0.05, 0.3)
            await asyncio.sleep(pause_s)
            lasts -= pause_s

    return act


def slow(chance: random.Random) -> Fault:
    latency_s = chance.uniform(0.005, 0.1)
    return Fault(latency_s=latency_s, jitter_s=latency_s)


def narrow(chance: random.Random) -> Fault:
    return Fault(bytes_per_s=chance.uniform(20_000, 200_000))


def loses(way: Way) -> Callable[[random.Random], Fault]:
    return lambda _: Fault(lost=frozenset({way}))


def cut(chance: random.Random) -> Fault:
    return Fault(cut_after=chance.randint(100, 20_000))


def cut_answer(asked: Asked) -> Callable[[random.Random], Fault]:
    def fault(chance: random.Random) -> Fault:
        return Fault(loses_answer=sometimes(asked, _ANSWERS_CUT, chance))

    return fault


def changes(request: bytes) -> bool:
    """A statement or a commit of PostgreSQL, as asyncpg sends them."""
    return execute(request) or commit(request)


def anything(_request: bytes) -> bool:
    return True


def always(fault: Fault) -> Callable[[random.Random], Fault]:
    return lambda _: fault
