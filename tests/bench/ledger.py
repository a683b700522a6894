"""What PostgreSQL has on record, read when a measure is over: the only SQL of the benchmark.

The API tells times in milliseconds; the rows have microseconds, all by PostgreSQL's one clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from tests.bench.figures import BenchError

_ATTEMPTS = """
SELECT count(*), count(DISTINCT a.job_id), count(*) FILTER (WHERE a.outcome = 'succeeded')
FROM jobs j JOIN attempts a USING (job_id) WHERE j.queue = $1
"""

_STARTS = """
SELECT j.job_id::text, extract(epoch FROM j.run_at)::float8,
       extract(epoch FROM a.started_at - j.run_at)::float8 * 1000
FROM jobs j JOIN attempts a USING (job_id) WHERE j.queue = $1 AND a.attempt = 1
"""

_FINISHED = """
SELECT extract(epoch FROM max(a.finished_at))::float8
FROM jobs j JOIN attempts a USING (job_id) WHERE j.queue = $1
"""

_SUCCEEDED = """
SELECT count(*) FROM jobs j JOIN attempts a USING (job_id)
WHERE j.queue = $1 AND a.outcome = 'succeeded'
"""

_MISSING = """
SELECT count(*) FROM unnest($2::uuid[]) AS asked (job_id)
LEFT JOIN jobs j ON j.job_id = asked.job_id AND j.queue = $1 WHERE j.job_id IS NULL
"""

_WORKFLOW = """
SELECT w.state, w.succeeded,
       (SELECT count(*) FROM attempts a JOIN jobs j USING (job_id)
        WHERE j.workflow_id = w.workflow_id)
FROM workflows w WHERE w.workflow_id = $1::uuid
"""

_WORKFLOW_TOOK = """
SELECT extract(epoch FROM w.finished_at - min(a.started_at))::float8
FROM workflows w JOIN jobs j USING (workflow_id) JOIN attempts a USING (job_id)
WHERE w.workflow_id = $1::uuid GROUP BY w.workflow_id
"""

_HOPS = """
SELECT extract(epoch FROM a.started_at - max(p.finished_at))::float8 * 1000
FROM jobs j JOIN attempts a USING (job_id)
JOIN job_edges e ON uuid_send(e.child_id) = uuid_send(j.job_id)
JOIN attempts p ON p.job_id = e.parent_id
WHERE j.workflow_id = $1::uuid GROUP BY a.job_id, a.started_at
"""

_ROOT_TO_LAST = """
SELECT extract(epoch FROM max(a.started_at) - min(a.finished_at))::float8 * 1000
FROM jobs j JOIN attempts a USING (job_id) WHERE j.workflow_id = $1::uuid
"""

_VACUUMS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


@dataclass(frozen=True, slots=True)
class Start:
    """The first start of a job: when it was ready (seconds since 1970), how much later it was."""

    job_id: str
    ready_at: float
    late_ms: float


@dataclass(frozen=True, slots=True)
class Hops:
    """From the end of each job's last parent to its start; from the first end to the last start."""

    ms: list[float]
    root_to_last_ms: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """Connects for each question, so that nothing of ours is there while others are measured."""

    dsn: str

    async def started_once_each(self, queue: str, count: int) -> None:
        """Raises BenchError unless the queue's `count` jobs each had one attempt, a good one."""
        found = tuple((await self._rows(_ATTEMPTS, queue))[0])
        if found != (count, count, count):
            text = "{} attempts of {} jobs, {} of them succeeded".format(*found)
            raise BenchError(f"of {count} jobs in {queue}, PostgreSQL has {text}")

    async def starts(self, queue: str) -> list[Start]:
        return [Start(*row) for row in await self._rows(_STARTS, queue)]

    async def finished_at(self, queue: str) -> float:
        """When the last attempt of the queue was settled, in seconds since 1970."""
        return float((await self._rows(_FINISHED, queue))[0][0])

    async def succeeded(self, queue: str) -> int:
        """How many jobs of the queue have succeeded."""
        return int((await self._rows(_SUCCEEDED, queue))[0][0])

    async def missing(self, queue: str, ids: Sequence[str]) -> int:
        """How many of these are no jobs of the queue."""
        return int((await self._rows(_MISSING, queue, list(ids)))[0][0])

    async def newest_workflow(self) -> str:
        query = "SELECT workflow_id::text FROM workflows ORDER BY workflow_id DESC LIMIT 1"
        return str((await self._rows(query))[0][0])

    async def workflow(self, id_: str) -> tuple[str, int, int]:
        """Its state, its jobs that succeeded, their attempts."""
        state, succeeded, attempts = (await self._rows(_WORKFLOW, id_))[0]
        return str(state), int(succeeded), int(attempts)

    async def workflow_took_s(self, id_: str) -> float:
        """From the first start to its end."""
        return float((await self._rows(_WORKFLOW_TOOK, id_))[0][0])

    async def hops(self, id_: str) -> Hops:
        found = [float(row[0]) for row in await self._rows(_HOPS, id_)]
        return Hops(found, float((await self._rows(_ROOT_TO_LAST, id_))[0][0]))

    async def is_vacuuming(self) -> bool:
        return bool((await self._rows(_VACUUMS))[0][0])

    async def setting(self, name: str) -> str:
        return str((await self._rows(f"SHOW {name}"))[0][0])

    async def _rows(self, sql: str, *args: object) -> list[asyncpg.Record]:
        con = await asyncpg.connect(self.dsn)
        try:
            return await con.fetch(sql, *args)
        finally:
            await con.close()
