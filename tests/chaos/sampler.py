"""What each replica uses over time: memory, descriptors, threads, tasks, Postgres connections."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import orjson
import psutil

from tests.support.fleet import Fleet
from tests.support.replica import ReplicaProcess

NAMES = ("rss_mib", "descriptors", "threads", "tasks", "pg_connections")
_EVERY_S = 3.0
_ANSWER_S = 1.0
_WARM_S = 10.0  # a process uses less while it starts
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Taken:
    """One sample. `t`: seconds since 1970."""

    t: float
    replica: str
    used: dict[str, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one figure: medians of the first and the last quarter of the samples, the largest, and the
    slope of the line through all of them, per hour."""

    first: float
    last: float
    largest: float
    per_hour: float


class Sampler:
    def __init__(self, fleet: Fleet, path: Path | None = None) -> None:
        self.samples: list[Taken] = []
        self._fleet = fleet
        self._path = path

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def trends(self) -> dict[str, dict[str, Trend]]:
        """By replica and figure; a replica keeps its name when it is started again."""
        found: dict[str, dict[str, Trend]] = {}
        for replica in sorted({one.replica for one in self.samples}):
            own = [one for one in self.samples if one.replica == replica]
            found[replica] = {
                name: trend([(one.t, one.used[name]) for one in own]) for name in NAMES
            }
        return found

    async def _run(self) -> None:
        while True:
            for replica in self._fleet.replicas:
                await self._take(replica)
            await asyncio.sleep(_EVERY_S)

    async def _take(self, replica: ReplicaProcess) -> None:
        """Nothing of one that is young, has ended, or doesn't answer."""
        if replica.ended:
            return
        try:
            used = _used(replica)
            tasks = await self._fleet.metric(replica, "penstock_tasks", _ANSWER_S) if used else 0.0
        except (psutil.NoSuchProcess, psutil.ZombieProcess, OSError, HTTPException):
            return
        if not used:
            return
        used["tasks"] = tasks
        taken = Taken(time.time(), f"replica-{replica.port}", used)
        self.samples.append(taken)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(orjson.dumps(taken, option=orjson.OPT_APPEND_NEWLINE))


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Of (seconds, value) pairs in the order of time; at least one."""
    values = [value for _, value in points]
    quarter = max(len(values) // 4, 1)
    times = [(t - points[0][0]) / _HOUR_S for t, _ in points]
    is_line = len(set(times)) > 1
    return Trend(
        statistics.median(values[:quarter]),
        statistics.median(values[-quarter:]),
        max(values),
        statistics.linear_regression(times, values).slope if is_line else 0.0,
    )


def _used(replica: ReplicaProcess) -> dict[str, float]:
    """Nothing while it is young."""
    process = psutil.Process(replica.pid)
    if time.time() - process.create_time() < _WARM_S:
        return {}
    with process.oneshot():
        return {
            "rss_mib": process.memory_info().rss / 2**20,
            "descriptors": float(process.num_fds()),
            "threads": float(process.num_threads()),
            "pg_connections": float(_connections(process, replica.postgres_port)),
        }


def _connections(process: psutil.Process, port: int) -> int:
    return sum(
        one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) and one.raddr.port == port
        for one in process.net_connections("tcp")
    )
