"""An engine whose loops stand still: a test turns them, one `step()` at a time.

What has no steps (the batchers, the pool) runs. `db` and `redis` are another replica's hands on
the same servers, and see behind the doors.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.domain.attempt import Ending
from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Submission
from penstock.egress.client import Egress
from penstock.engine import Engine
from penstock.handlers.registry import Registry
from penstock.loops.settle import Outgoing
from penstock.queue.redis import RedisDoor
from penstock.rooms import Rooms
from penstock.settings import Settings
from penstock.store.health import Health
from penstock.store.postgres import Limits, Postgres
from penstock.telemetry.metrics import Metrics
from tests.support import database, making, redis_shelves
from tests.support.database import Database
from tests.support.redis_shelves import Contents, RedisShelves
from tests.support.waiting import eventually

Q = "{q:default}:"  # how the keys of the default queue begin


@dataclass(frozen=True, slots=True)
class Still:
    engine: Engine
    rooms: Rooms
    db: Database
    redis: RedisShelves

    async def submit(self, count: int = 1, **fields: Any) -> list[JobId]:
        """Jobs stored and in line."""
        jobs = making.new_jobs(count, **fields)
        await self.store(jobs)
        await self.engine.enqueuer.drained()
        return [job.id for job in jobs]

    async def store(self, jobs: Sequence[NewJob]) -> datetime:
        """Jobs of one caller, who has no key; when they were committed."""
        return (await self.engine.submitter.submit(Submission(jobs))).at

    async def start(self, count: int = 1, **fields: Any) -> list[Started]:
        """Attempts of this replica, claimed and started, which nobody runs."""
        ids = await self.submit(count, **fields)
        queue, kind = fields.get("queue", "default"), fields.get("kind", "echo")
        claimed = await self.engine.shelves.claim(queue, [kind], count, 10.0)
        assert claimed.ids == ids
        return await self.engine.jobs.start(ids, self.engine.me.worker)

    async def settle(self, *endings: tuple[Started, Ending]) -> None:
        await self.engine.settler.settle(Outgoing(job, ending) for job, ending in endings)
        await self.engine.enqueuer.drained()

    async def shelves(self) -> Contents:
        return await self.redis.contents()

    async def ready(self, kind: str = "echo") -> list[bytes]:
        """The ids on a ready shelf of the default queue, in claim order."""
        return list((await self.shelves()).get(f"{Q}ready:{kind}", {}))

    async def leases(self) -> set[bytes]:
        return set((await self.shelves()).get(f"{Q}leases", {}))

    async def in_places(self, ids: list[JobId], *states: str) -> None:
        """Returns when each job is in one of these states."""

        async def look() -> bool:
            return all(place in states for place in await self.db.places(ids))

        await eventually(look, f"{len(ids)} jobs are {' or '.join(states)}", every_s=0.01)

    async def redis_is(self, *, away: bool) -> None:
        """Turns the loop that finds it out."""

        async def look() -> bool:
            with suppress(QueueUnavailable):
                await self.engine.renewer.read_clock()
            return self.engine.shelves.away == away

        await eventually(look, f"Redis is found to be {'away' if away else 'back'}")

    async def outcomes(self, id_: JobId) -> list[str]:
        rows = await self.db.session.fetch(
            "SELECT outcome FROM attempts WHERE job_id = $1 ORDER BY attempt", id_
        )
        return [row[0] for row in rows]

    def metric(self, name: str, **labels: str) -> float:
        return self.rooms.metrics.registry.get_sample_value(f"penstock_{name}", labels) or 0.0


@asynccontextmanager
async def standing(settings: Settings, db_dsn: str, redis_url: str) -> AsyncIterator[Still]:
    """`db_dsn` and `redis_url` are for the test's own hands; the engine goes by its settings."""
    dsn, limits = settings.postgres.dsn.get_secret_value(), Limits(connect_timeout_s=1.0)
    postgres, health = Postgres(dsn, limits), Health(dsn, limits)
    door = RedisDoor(settings.redis.url.get_secret_value(), settings.redis.timeout_s)
    registry = Registry.load(settings.handlers.modules)
    hooks = Egress(settings.egress.allow)
    rooms = Rooms(
        dsn, limits, postgres, health, door, Egress(), Egress(), hooks, registry, Metrics()
    )
    await postgres.open()
    engine = Engine(settings, rooms)
    runs = asyncio.create_task(_run(engine))
    await hooks.__aenter__()
    try:
        await engine.registrar.step()
        async with database.opened(db_dsn) as db, redis_shelves.opened(redis_url) as redis:
            yield Still(engine, rooms, db, redis)
        assert not runs.done() or runs.result(), "what runs for ever has ended"
    finally:
        runs.cancel()
        await asyncio.wait([runs], timeout=3)
        await engine.close()
        await hooks.__aexit__()
        await door.close()
        health.close()
        postgres.close()


async def _run(engine: Engine) -> None:
    async with asyncio.TaskGroup() as group:
        for run in engine.runs():
            group.create_task(run())


def changed(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """These settings with some values changed: `changed(settings, worker={"threads": 1})`."""
    update = {
        name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()
    }
    return settings.model_copy(update=update)
