"""What is done to a mutant, a few seconds each. Without a bug every scene passes every rule: a
trial of the scene alone, with its provocations, shows that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import redis

from tests.chaos.mutants.stage import QUICK, Job, Stage, until
from tests.support.waiting import eventually

Scene = Callable[[Stage], Awaitable[None]]

_SOON = {"kind": "fixed", "base_s": 0.1}


def job(seconds: float = 0.05, failures: int = 0, **fields: object) -> Job:
    """A job that fails so many times and then succeeds."""
    payload = {"seconds": seconds, "failures": failures}
    return {"kind": "logged", "payload": payload, "backoff": _SOON, **fields}


def mixed(number: int) -> Job:
    """Most succeed at once, some fail first, some for good; a few are to come."""
    failures = (0, 0, 0, 1, 0, 2, 0, 9)[number % 8]
    delay_s = 1.0 if number % 5 == 0 else 0.0
    return job((0, 0.02, 0.3)[number % 3], failures, max_attempts=3, delay_s=delay_s)


async def calm(stage: Stage) -> None:
    """Nothing happens but jobs, most of which start at once."""
    stage.late_max_s = 1.0
    await stage.fleet.start(1, **QUICK)
    async with stage.stream(40, mixed):
        await asyncio.sleep(3.5)


async def kills(stage: Stage) -> None:
    """`kill -9` of either replica, amid jobs of a second."""
    stage.lost_max = None
    await stage.fleet.start(2, **QUICK)
    began = time.monotonic()
    async with stage.stream(40, lambda n: job((0, 0.02, 1)[n % 3])):
        for number in (0, 1):
            await until(1 + 1.5 * number, began)
            replica = stage.fleet.replicas[number]
            replica.kill()
            replica.start()
        await until(3.5, began)


async def one_killed(stage: Stage) -> None:
    """`kill -9` of one of two replicas, which doesn't come back."""
    stage.lost_max, stage.drain_s = None, 30.0
    first, _ = await stage.fleet.start(2, **QUICK)
    await stage.submit(*(job(0.3) for _ in range(200)))
    async with stage.stream(40, lambda n: job(0.02)):
        await asyncio.sleep(1.5)
        first.kill()
        await asyncio.sleep(0.5)
    stage.fleet.replicas.remove(first)


async def stopped(stage: Stage) -> None:
    """SIGSTOP of one of two replicas, twice for much longer than it is given to live."""
    stage.lost_max, stage.overlaps_max = None, 1_000_000
    first, _ = await stage.fleet.start(2, **QUICK)
    async with stage.stream(60, lambda n: job((0.02, 0.5)[n % 2])):
        for _ in range(2):
            await asyncio.sleep(1.0)
            first.pause()
            await asyncio.sleep(6.0)
            first.resume()


async def postgres_paused(stage: Stage) -> None:
    """PostgreSQL stands still for longer than replicas are given to live, amid long jobs."""
    postgres = stage.servers.postgres
    await stage.fleet.start(2, **QUICK)
    for _ in range(2):
        await stage.submit(*(job(8.0) for _ in range(40)))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(postgres.pause)
        await asyncio.sleep(3.5)
        await asyncio.to_thread(postgres.resume)
        await asyncio.sleep(1.0)


async def callers_lost(stage: Stage) -> None:
    """`kill -9` of one of two replicas while callers wait for answers, three times."""
    stage.lost_max = None
    await stage.fleet.start(2, **QUICK)
    async with stage.stream(100, lambda n: job(0)):
        for number in (0, 1, 0):
            await asyncio.sleep(1.0)
            replica = stage.fleet.replicas[number]
            replica.kill()
            replica.start()
            await replica.ready()


async def terminated(stage: Stage) -> None:
    """SIGTERM of one of two replicas, amid jobs that outlast its grace."""
    first, _ = await stage.fleet.start(2, **QUICK)
    await stage.submit(*(job(6.0) for _ in range(40)))
    async with stage.stream(80, lambda n: job((0.02, 6.0)[n % 10 == 0])):
        await asyncio.sleep(1.0)
        await stage.terminate(first)
        stage.fleet.replicas.remove(first)  # nobody calls it any more
        await asyncio.sleep(0.5)
    stage.fleet.replicas.append(first)


async def cancelled(stage: Stage) -> None:
    """Callers cancel what waits and what runs, and retry what is over."""
    await stage.fleet.start(1, **QUICK)
    waiting = await stage.submit(*(job(delay_s=60.0) for _ in range(10)))
    failing = await stage.submit(*(job(1.0, failures=1) for _ in range(30)))
    dying = await stage.submit(*(job(0, failures=1, max_attempts=1) for _ in range(10)))
    done = await stage.submit(*(job(0) for _ in range(10)))
    await started(stage, len(failing) + len(dying) + len(done))
    for id_ in (*waiting, *failing):
        await stage.change(id_, "cancel")
    await asyncio.sleep(0.5)
    for id_ in (*dying, *done):
        await stage.change(id_, "retry")


async def keyed(stage: Stage) -> None:
    """Requests are sent twice with one Idempotency-Key; others fight for a few unique keys."""
    await stage.fleet.start(2, **QUICK)
    for number in range(30):
        marker = f"keyed-{number}"
        for _ in range(2):
            await stage.submit(job(0), job(0), key=f"key {number}", marker=marker)
    until_s = time.monotonic() + 3.0
    while time.monotonic() < until_s:
        for number in range(4):
            one = job(0.1, failures=1, unique_key=f"unique {number}")
            await stage.submit({**one, "backoff": {"kind": "fixed", "base_s": 0.3}})
        await asyncio.sleep(0.1)


async def expiring(stage: Stage) -> None:
    """Jobs that don't wait long, some of which fail first, on two slots."""
    await stage.fleet.start(1, **QUICK, worker__concurrency=2)
    slow = {"kind": "fixed", "base_s": 2.5}  # a round of the expirer lies between
    await stage.submit(*({**job(0.02, 1, ttl_s=1.0), "backoff": slow} for _ in range(10)))
    await asyncio.sleep(0.3)
    await stage.submit(*(job(0.1, ttl_s=0.7) for _ in range(60)))
    await asyncio.sleep(3.0)


async def paused(stage: Stage) -> None:
    """A queue stands still for five seconds, with jobs in it."""
    await stage.fleet.start(1, **QUICK)
    async with stage.stream(40, lambda n: job(0)):
        await asyncio.sleep(0.5)
        await _switch(stage, "pause")
        await asyncio.sleep(5.0)
        await _switch(stage, "resume")


async def started(stage: Stage, count: int) -> None:
    async def look() -> bool:
        return len(stage.fleet.log.starts()) >= count

    await eventually(look, f"{count} attempts have begun")


async def _switch(stage: Stage, verb: str) -> None:
    url = stage.fleet.urls[0]
    status, answer = await stage.api.call_at(url, "POST", f"/v1/queues/default/{verb}")
    assert status < 300, answer


async def calm_but_late(stage: Stage) -> None:
    """The same, with provocations by which starts come late."""
    await calm(stage)
    stage.late_max_s = None


async def failing(stage: Stage) -> None:
    """Jobs that all fail once and are due again at once, while Redis is flushed again and again: by
    that they begin again before their settlement is answered, for their lease is gone."""
    stage.drain_s = 30.0
    await stage.fleet.start(1, **QUICK)
    async with stage.stream(30, lambda n: job(0.3, failures=1)):
        for _ in range(6):
            await asyncio.sleep(1)
            with redis.Redis.from_url(stage.redis_url) as client:
                await asyncio.to_thread(client.flushall)


async def failing_in_time(stage: Stage) -> None:
    """Jobs that all fail once, and must be started again soon."""
    stage.late_max_s = 1.2
    await stage.fleet.start(1, **QUICK)
    async with stage.stream(30, lambda n: job(0.02, failures=1)):
        await asyncio.sleep(4)


async def crowded(stage: Stage) -> None:
    """Jobs that end together, so that one settlement has many; adoption, once in 10 s, has time."""
    stage.drain_s = 20.0
    await stage.fleet.start(1, **QUICK)
    for _ in range(3):
        await stage.submit(*(job(0.3) for _ in range(100)))
        await asyncio.sleep(0.5)
