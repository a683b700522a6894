"""One database for many tests: opened with the engine's own options, emptied between tests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from penstock.clock import ServerClock
from penstock.domain.attempt import Ending
from penstock.domain.effect import Policy
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import Due, Started, State
from penstock.domain.verdict import Patience, decide
from penstock.store.graphs import Graphs
from penstock.store.health import Health
from penstock.store.jobs import Attempt, Jobs, Settled, Settlement
from penstock.store.letters import Letters
from penstock.store.line import Line
from penstock.store.lists import Lists
from penstock.store.postgres import Limits, Postgres
from penstock.store.queues import Queues
from penstock.store.reads import Reads
from penstock.store.submissions import Submissions
from penstock.store.workers import Identity, Workers
from penstock.store.workflow_reads import WorkflowReads
from tests.support import making

WHO = Identity("host", 1, "0", ("*",), ("echo",), 10)
TTL_S = 10.0
DAY_S = 86_400.0
TABLES = (
    *("jobs", "job_due", "job_running", "job_ended", "attempts", "job_logs"),
    *("job_progress", "queues", "queue_counts", "workers", "job_unique", "idempotency_keys"),
    *("effects", "deliveries", "endpoints", "dead_letters", "rule_marks", "rule_groups"),
    *("workflows", "job_edges", "job_blocked", "job_spreads"),
    "pruned_workflows",
)


@dataclass(frozen=True, slots=True)
class Database:
    """The store's classes, and a session of the test's own that sees behind them."""

    dsn: str
    postgres: Postgres
    session: "asyncpg.Connection[asyncpg.Record]"
    health: Health
    submissions: Submissions
    jobs: Jobs
    graphs: Graphs
    line: Line
    queues: Queues
    workers: Workers
    reads: Reads
    lists: Lists
    workflow_reads: WorkflowReads
    letters: Letters

    async def empty(self) -> None:
        """As after the migrations, but for the counters of the tables' statistics."""
        await self.session.execute(f"TRUNCATE {', '.join(TABLES)}")
        await self.session.execute(
            "UPDATE pulse SET last_beat = clock_timestamp(), unbroken_since = clock_timestamp()"
        )

    async def worker(self, ttl_s: float = TTL_S) -> WorkerId:
        """A registered worker."""
        worker = making.worker_id()
        await self.workers.register(worker, WHO, ttl_s)
        return worker

    async def submit(self, count: int = 1, **fields: Any) -> list[JobId]:
        jobs = making.new_jobs(count, **fields)
        await self.submissions.store(jobs)
        return [job.id for job in jobs]

    async def running(self, count: int = 1, **fields: Any) -> list[Started]:
        """Attempts under way, all under one new worker's name unless `worker` is given."""
        worker = fields.pop("worker", None) or await self.worker()
        return await self.jobs.start(await self.submit(count, **fields), worker)

    async def settle(self, job: Started, ending: Ending, *, cancel_known: bool = False) -> bool:
        """Settles one attempt as its verdict says; whether its row was there."""
        settled, _ = await self.settle_all([settlement(job, ending, cancel_known)])
        return (job.id, job.attempt) in settled

    async def settle_all(
        self, batch: Sequence[Settlement]
    ) -> tuple[dict[Attempt, Settled], set[Attempt]]:
        """What was settled of plain jobs, and which a cancel held back."""
        made = await self.jobs.settle(batch)
        assert not made.linked
        return made.settled, made.held

    async def retry(self, id_: JobId) -> Due | None:
        """A new life for a plain job; None: it can't be moved."""
        moved = await self.graphs.retry_job(id_)
        return moved.due[0] if moved is not None else None

    async def places(self, ids: Sequence[JobId]) -> list[str | None]:
        """Where each of these jobs stands."""
        found = [await self.jobs.standing_of(id_) for id_ in ids]
        return [None if one is None else one[0] for one in found]

    async def count(self, table: str) -> int:
        return int(await self.session.fetchval(f"SELECT count(*) FROM {table}"))

    async def row(self, table: str, id_: JobId) -> Any:
        return await self.session.fetchrow(f"SELECT * FROM {table} WHERE job_id = $1", id_)


def settlement(
    job: Started, ending: Ending, cancel_known: bool = False, patience: Patience | None = None
) -> Settlement:
    """As the settler makes it, with the shortest back-off."""
    verdict = decide(
        job, ending, chance=0.0, cancel_requested=cancel_known, patience=patience or Patience()
    )
    error = '{"type":"oops"}' if ending.failure else None
    mark = "0" * 16 if verdict.state is State.DEAD else None
    return Settlement(job, ending, verdict, error, cancel_known, fingerprint=mark)


async def until_somebody_waits_for_a_lock(db: Database) -> None:
    async with asyncio.timeout(5):
        while not await db.session.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            continue


@asynccontextmanager
async def opened(
    dsn: str, limits: Limits | None = None, policy: Policy | None = None
) -> AsyncIterator[Database]:
    limits, policy = limits or Limits(), policy or Policy()
    postgres, health = Postgres(dsn, limits), Health(dsn, limits)
    await postgres.open()
    session = await asyncpg.connect(dsn)
    await session.set_type_codec(
        "uuid", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary"
    )
    try:
        yield Database(
            dsn,
            postgres,
            session,
            health,
            Submissions(postgres, ServerClock(), DAY_S, policy),
            Jobs(postgres, policy),
            Graphs(postgres, policy),
            Line(postgres),
            Queues(postgres, 10_000),
            Workers(postgres),
            Reads(postgres, health),
            Lists(postgres, health),
            WorkflowReads(postgres, health),
            Letters(postgres, health),
        )
    finally:
        await session.close()
        health.close()
        postgres.close()
