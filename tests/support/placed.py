"""Jobs that stand in their places, written behind the store's back, and what a list should show.

Ids lie a millisecond apart, so that a window of time cuts where a test wants it to.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, State
from penstock.domain.workflow import LOOSE
from penstock.store.lists import JobFilter
from tests.support import making

LIVE = (State.BLOCKED, State.SCHEDULED, State.READY, State.RUNNING)
STATES = (*LIVE, State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED)


@dataclass(frozen=True, slots=True)
class Placed:
    id: JobId
    queue: str
    kind: str
    state: State
    tags: tuple[str, ...] = field(default=())
    workflow: JobId | None = None

    def fits(self, of: JobFilter) -> bool:
        return (
            of.since <= self.id < of.below
            and (of.queues is None or self.queue in of.queues)
            and (of.kinds is None or self.kind in of.kinds)
            and (of.states is None or self.state in of.states)
            and (of.tags is None or not set(self.tags).isdisjoint(of.tags))
            and of.workflow in (None, self.workflow)
        )


def some_jobs(count: int, source: random.Random) -> list[Placed]:
    """Few queues, kinds and tags, some of them rare, and states that come in runs, as they do. A
    third are of one of three workflows."""
    jobs = []
    workflows = [*making.job_ids(3), *[None] * 6]
    state = State.READY
    for id_ in making.job_ids(count):
        if source.random() < 0.1:
            state = source.choice(STATES)
        tags = source.sample(["a", "b", "c", "rare"], counts=[5, 3, 1, 1], k=source.choice([0, 2]))
        jobs.append(
            Placed(
                id_,
                source.choice(["q1", "q1", "q1", "q2", "q3"]),
                source.choice(["k1", "k1", "k2", "k3"]),
                source.choice(STATES) if source.random() < 0.2 else state,
                tuple(tags),
                source.choice(workflows),
            )
        )
    return jobs


def listed(jobs: Iterable[Placed], of: JobFilter) -> list[JobId]:
    """The ids that a list shows, over all of its pages."""
    return sorted((job.id for job in jobs if job.fits(of)), reverse=True)


async def place(con: "asyncpg.Connection[asyncpg.Record]", jobs: Sequence[Placed]) -> None:
    """Writes them into `jobs` and their places."""
    soon, past = making.NOON + timedelta(days=36_500), making.NOON - timedelta(days=3650)
    columns = {
        "jobs": "job_id, queue, kind, tags, priority, payload, run_at, max_attempts, timeout_s,"
        " on_lost, created_by, workflow_id, name",
        "job_due": "job_id, queue, kind, priority, ready_at, attempt, failures, losses",
        "job_running": "job_id, queue, kind, priority, ready_at, attempt, failures, losses,"
        " worker_id, started_at",
        "job_blocked": "job_id, queue, kind, priority, run_at, attempt, graph_id, run_if, parents,"
        " succeeded, dead, cancelled, skipped",
        "job_ended": "job_id, queue, kind, state, attempt, failures, losses, finished_at",
    }
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in columns}
    for job in jobs:
        head = (job.id, job.queue, job.kind)
        spec = (list(job.tags) or None, 5, '{"i":1}', past, 5, 300.0, "retry", "ada")
        name = None if job.workflow is None else job.id.hex()
        rows["jobs"].append((*head, *spec, job.workflow, name))
        if job.state in TERMINAL:
            rows["job_ended"].append((*head, job.state, 1, 0, 0, past))
        elif job.state is State.RUNNING:
            rows["job_running"].append((*head, 5, past, 1, 0, 0, making.worker_id(), past))
        elif job.state is State.BLOCKED:
            graph = job.workflow or LOOSE
            rows["job_blocked"].append((*head, 5, past, 0, graph, "all_failed", 1, 0, 0, 0, 0))
        else:
            ready_at = soon if job.state is State.SCHEDULED else past
            rows["job_due"].append((*head, 5, ready_at, 0, 0, 0))
    for table, names in columns.items():
        await con.copy_records_to_table(table, records=rows[table], columns=names.split(", "))
