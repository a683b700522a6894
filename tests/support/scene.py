"""The scene of a fault test: servers of its own, replicas, callers, and the final check."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import redis

from penstock.queue import keys
from tests.support import checker
from tests.support.api import Api
from tests.support.checker import Connection, Drained, Evidence, Report
from tests.support.execution_log import Attempt, Event, ExecutionLog
from tests.support.figures import figures
from tests.support.fleet import Fleet
from tests.support.load import Load
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers
from tests.support.submissions import SubmissionLog
from tests.support.waiting import eventually


@dataclass(frozen=True, slots=True)
class Scene:
    servers: Servers
    dsn: str
    fleet: Fleet
    load: Load
    drains: list[Drained] = field(default_factory=list)  # replicas that were sent SIGTERM

    @property
    def log(self) -> ExecutionLog:
        return self.fleet.log

    async def started(self, count: int, within_s: float = 30.0) -> None:
        """Returns when so many attempts have begun."""

        async def look() -> bool:
            return len(self.log.starts()) >= count

        await eventually(look, f"{count} attempts have begun", within_s)

    async def begun(self, attempts: set[Attempt], within_s: float = 30.0) -> None:
        """Returns when all of these have begun."""

        async def look() -> bool:
            return attempts <= {event.key for event in self.log.starts()}

        await eventually(look, f"{len(attempts)} certain attempts have begun", within_s)

    async def busy(self, replica: ReplicaProcess, count: int, within_s: float = 20.0) -> None:
        """Returns when a replica runs at least so many jobs."""

        async def look() -> bool:
            return len(self.log.under_way(replica.pid)) >= count

        await eventually(look, f"{replica.url} runs {count} jobs", within_s)

    async def attempts(self) -> list[Any]:
        """All attempts that have ended: job, attempt, worker, started_at, finished_at, outcome."""
        async with self.connected() as con:
            return list(
                await con.fetch(
                    "SELECT job_id::text AS job, attempt, worker_id::text AS worker,"
                    " extract(epoch FROM started_at)::float8 AS started_at,"
                    " extract(epoch FROM finished_at)::float8 AS finished_at, outcome FROM attempts"
                )
            )

    async def workers(self) -> list[tuple[str, int, float]]:
        """All that there were: name, process, time of birth in seconds since 1970."""
        async with self.connected() as con:
            found = await con.fetch(
                "SELECT worker_id::text, note::int, extract(epoch FROM clock)::float8 FROM trail"
                " WHERE place = 'workers' AND op = 'INSERT'"
            )
        return [(row[0], row[1], row[2]) for row in found]

    async def live(self) -> int:
        """How many jobs are due or running."""
        async with self.connected() as con:
            return await checker.live(con)

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Pauses or resumes a queue."""
        path = f"/v1/queues/{queue}/{'pause' if paused else 'resume'}"
        status, answer = await self.load.api.call_at(self.fleet.urls[0], "POST", path)
        assert status < 300, answer

    async def flush_redis(self) -> None:
        with redis.Redis.from_url(self.servers.redis.url) as client:
            await asyncio.to_thread(client.flushall)

    async def forget_ready(self, queue: str, kind: str) -> None:
        """Takes a ready shelf away, once there is one."""
        (shelf,) = keys.ready(queue, [kind])
        with redis.Redis.from_url(self.servers.redis.url) as client:

            async def look() -> bool:
                return bool(await asyncio.to_thread(client.delete, shelf))

            await eventually(look, f"{shelf} is there")

    def evidence(self, overlaps_max: int = 0) -> Evidence:
        """What everybody wrote down, for the checker."""
        return Evidence(
            self.load.accepted,
            self.log.read(),
            self.load.unknown,
            overlaps_max,
            self.load.log.requests,
        )

    async def end(self, title: str, within_s: float = 30.0, overlaps_max: int = 0) -> Report:
        """Waits for the last job and holds all that must hold against what happened."""
        async with self.connected() as con:
            began = time.monotonic()
            await checker.drained(con, within_s)
            drain_s = time.monotonic() - began
            report = await checker.check(con, self.evidence(overlaps_max))
        complaints = self.fleet.complaints()
        assert not complaints, "\n".join(complaints[:5])
        figures(
            title,
            jobs=report.jobs,
            outcomes=report.outcomes,
            overlaps=report.overlaps,
            unknown=self.load.unknown,
            recovered=report.recovered,
            drained_in_s=drain_s,
        )
        return report

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        con = await asyncpg.connect(self.dsn)
        try:
            yield con
        finally:
            await con.close()


@asynccontextmanager
async def staged(
    servers: Servers, dsn: str, directory: Path, *, proxied: bool = False
) -> AsyncIterator[Scene]:
    """A scene without replicas yet, on an empty database. Heals the servers afterwards, however it
    went."""
    con = await asyncpg.connect(dsn)
    await checker.keep_trail(con)
    await con.close()
    fleet = Fleet(dsn, servers.redis.url, directory, proxied=proxied)
    log = SubmissionLog(directory / "submissions.log")
    try:
        async with Api("") as api:
            yield Scene(servers, dsn, fleet, Load(api, log))
    finally:
        log.close()
        fleet.stop()
        for server in (servers.postgres, servers.redis):
            server.resume()
            server.start()


def next_starts(events: list[Event]) -> dict[Attempt, float]:
    """When each (job, attempt) began, by the execution log."""
    return {event.key: event.t for event in events if event.ev == "start"}


def largest_gap(times: list[float]) -> float:
    """The longest time between two that follow each other."""
    pairs = itertools.pairwise(sorted(times))
    return max((later - sooner for sooner, later in pairs), default=0.0)


def rate(times: list[float]) -> float:
    """How many a second, from the first to the last."""
    span = max(times) - min(times) if times else 0.0
    return (len(times) - 1) / span if span else 0.0
