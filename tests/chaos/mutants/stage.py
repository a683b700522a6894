"""The stage of one trial: replicas that run from a copy, callers who write a submission log."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from tests.support import checker
from tests.support.api import Api
from tests.support.checker import Connection, Drained, Evidence, Said, Sample, Submitted, index
from tests.support.fleet import Fleet
from tests.support.load import Request
from tests.support.replica import SECRET, ReplicaProcess
from tests.support.servers import Servers

Job = Mapping[str, Any]

QUICK = {  # so that much happens in little time
    "worker__ttl_s": 2,
    "worker__beat_s": 0.3,
    "worker__drain_grace_s": 0.5,
    "worker__cancel_grace_s": 0.5,
    "worker__losses_max": 1000,
    "queue__lease_s": 3,
    "queue__renew_s": 1,
}
_INDEX_S = 20.0  # leases, rounds of the surveyor and, for what was blocked, of the mirror
_FDS_MAX = 150


class Copies(Fleet):
    """Replicas that run from a copy of the package."""

    def __init__(self, dsn: str, redis_url: str, directory: Path, source: Path) -> None:
        super().__init__(dsn, redis_url, directory)
        self._source = source

    def _replica(self, environ: Mapping[str, str]) -> ReplicaProcess:
        path = f"{self._source}:{self._source.parent.parent}:{Path.cwd()}"
        return super()._replica({"PYTHONPATH": path, **environ})


@dataclass(slots=True)
class Stage:
    """What a scene works with, and the evidence that it gathers. `late_max_s`, `lost_max` and
    `overlaps_max` are what its faults allow, and everything is over `drain_s` after it."""

    servers: Servers
    dsn: str
    redis_url: str
    fleet: Copies
    api: Api
    submitted: list[Submitted] = field(default_factory=list)
    drains: list[Drained] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    late_max_s: float | None = None
    lost_max: int | None = 0
    overlaps_max: int = 0
    drain_s: float = 10.0

    @property
    def ids(self) -> list[str]:
        """All that was accepted, in the order of the answers."""
        return [id_ for one in self.submitted for id_ in one.ids]

    async def submit(self, *jobs: Job, key: str | None = None, marker: str = "") -> Sequence[str]:
        """One request to any replica; the ids that it was answered."""
        marker = marker or f"m-{len(self.submitted)}-{time.monotonic_ns()}"
        body = {"jobs": [{**job, "tags": [marker]} for job in jobs]}
        headers = None if key is None else {"Idempotency-Key": key}
        url = self.fleet.urls[len(self.submitted) % len(self.fleet.urls)]
        try:
            status, answer = await self.api.call_at(
                url, "POST", "/v1/jobs/batch", body, headers=headers
            )
        except (aiohttp.ClientError, TimeoutError):
            status, answer = 0, None
        ids = tuple(item["id"] for item in answer["items"]) if status == 201 else ()
        said = Said.OK if ids else Said.FAILED if 400 <= status < 500 else Said.UNKNOWN
        self.submitted.append(Submitted(marker, said, len(jobs), ids, key))
        return ids

    async def weave(self, graph: Request) -> tuple[str, dict[str, str]]:
        """Submits a workflow, which must be accepted: its id, and those of its jobs by name."""
        marker = f"w-{len(self.submitted)}-{time.monotonic_ns()}"
        jobs = [{**job, "tags": [marker, *job.get("tags", ())]} for job in graph.jobs]
        url = self.fleet.urls[len(self.submitted) % len(self.fleet.urls)]
        body = {"name": "woven", **(graph.workflow or {}), "jobs": jobs}
        status, answer = await self.api.call_at(url, "POST", "/v1/workflows", body)
        assert status == 201, answer
        ids = {job["name"]: job["id"] for job in answer["jobs"]}
        self.submitted.append(Submitted(marker, Said.OK, len(jobs), tuple(ids.values())))
        return answer["id"], ids

    @asynccontextmanager
    async def stream(self, per_s: float, job: Callable[[int], Job]) -> AsyncIterator[None]:
        """Single submissions at a steady rate."""

        async def send() -> None:
            async with asyncio.TaskGroup() as group:
                began, count = time.monotonic(), 0
                while not over.is_set():
                    for number in range(count, int((time.monotonic() - began) * per_s)):
                        group.create_task(self.submit(job(number)))
                        count = number + 1
                    await asyncio.sleep(0.02)

        over = asyncio.Event()
        sending = asyncio.create_task(send())
        try:
            yield
        finally:
            over.set()
            await sending

    async def change(self, id_: str, verb: str, of: str = "jobs", **body: object) -> int:
        """Cancels or retries a job, or one of `of`; the status, 0 if there was none."""
        path = f"/v1/{of}/{id_}/{verb}"
        try:
            status, _ = await self.api.call_at(self.fleet.urls[0], "POST", path, body)
        except (aiohttp.ClientError, TimeoutError):
            return 0
        return status

    async def terminate(self, replica: ReplicaProcess) -> None:
        """SIGTERM, written down."""
        signalled_at = time.time()
        replica.terminate()
        status = await asyncio.to_thread(replica.wait)
        grace_s = float(QUICK["worker__drain_grace_s"])
        self.drains.append(Drained(replica.pid, signalled_at, time.time(), status, grace_s))

    async def broken(self) -> dict[str, list[str]]:
        """Waits for the last job as long as that may take, then holds every rule."""
        con = await asyncpg.connect(self.dsn)
        try:
            return await self._broken(con)
        finally:
            await con.close()

    async def _broken(self, con: Connection) -> dict[str, list[str]]:
        broken: dict[str, list[str]] = {}
        with suppress(AssertionError):  # what is left is an offence, and told as one
            await checker.drained(con, self.drain_s)
        self._sample()
        try:
            await checker.check(con, self._evidence())
        except checker.Violations as found:
            broken |= found.broken
        if not broken:
            try:
                await index.converges(con, self.redis_url, max(_INDEX_S, self.drain_s))
            except checker.Violations as found:
                broken |= found.broken
        if complaints := self.fleet.complaints():
            broken["the log has no error"] = complaints
        return broken

    def _evidence(self) -> Evidence:
        # Two requests with one key have one marker: it counts once.
        unknown = {one.marker: one.count for one in self.submitted if one.said is Said.UNKNOWN}
        return Evidence(
            accepted={*self.ids},
            events=self.fleet.log.read(),
            unknown=sum(unknown.values()),
            overlaps_max=self.overlaps_max,
            submitted=self.submitted,
            drains=self.drains,
            samples=self.samples,
            caps={"fds": _FDS_MAX},
            canaries=[SECRET],
            texts=[replica.log_file for replica in self.fleet.replicas],
            late_max_s=self.late_max_s,
            lost_max=self.lost_max,
        )

    def _sample(self) -> None:
        for replica in self.fleet.replicas:
            if not replica.ended:
                fds = len(list(Path(f"/proc/{replica.pid}/fd").iterdir()))
                self.samples.append(Sample(replica.url, {"fds": fds}))


async def until(deadline_s: float, began: float) -> None:
    """Returns so long after `began` (monotonic): a scene's script goes by the clock."""
    await asyncio.sleep(max(0.0, began + deadline_s - time.monotonic()))
