"""Graphs of jobs in a test: written as names with their parents, stored, run step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.domain.attempt import Ending
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow, OnFailure
from penstock.store.graph_submissions import standing
from penstock.store.walk import Moved
from tests.support import making
from tests.support.database import Database, settlement

Parents = Mapping[str, Sequence[str]]  # by name


@dataclass(slots=True)
class Woven:
    """A stored workflow. `ids` by name."""

    db: Database
    id: JobId
    ids: dict[str, JobId]

    async def states(self) -> dict[str, str | None]:
        found = await self.db.places(list(self.ids.values()))
        return dict(zip(self.ids, found, strict=True))

    async def start(self, *names: str) -> list[Started]:
        worker = await self.db.worker()
        return await self.db.jobs.start([self.ids[name] for name in names], worker)

    async def end(self, *names: str, ending: Ending = making.SUCCESS) -> Moved:
        """Runs these jobs to that ending."""
        started = await self.start(*names)
        assert len(started) == len(names), f"not all of {names} are due"
        return await settle(self.db, *((job, ending) for job in started))

    async def fail(self, *names: str) -> Moved:
        """They die at once."""
        return await self.end(*names, ending=making.FINAL_FAILURE)

    async def row(self) -> Any:
        query = "SELECT * FROM workflows WHERE workflow_id = $1"
        return await self.db.session.fetchrow(query, self.id)


async def settle(db: Database, *pairs: tuple[Started, Ending]) -> Moved:
    made, moved = await db.graphs.settle([settlement(job, ending) for job, ending in pairs])
    assert len(made.settled) == len(pairs)
    return moved


async def weave(db: Database, parents: Parents, *, stop: bool = False, **run_if: str) -> Woven:
    """Stores a workflow. `run_if`: conditions by name."""
    id_ = making.job_id()
    jobs = new_jobs(parents, id_, run_if)
    rule = OnFailure.STOP if stop else OnFailure.CONTINUE
    submission = Submission(jobs, workflow=NewWorkflow(id_, "woven", rule))
    await db.submissions.store_graph(submission)
    return Woven(db, id_, {str(job.name): job.id for job in jobs})


def new_jobs(
    parents: Parents, workflow: JobId, run_if: Mapping[str, str] | None = None
) -> list[NewJob]:
    ids = {name: making.job_id() for name in parents}
    return [
        making.new_job(
            id=ids[name],
            workflow_id=workflow,
            name=name,
            depends_on=tuple(of),
            parents=tuple(ids[one] for one in of),
            run_if=(run_if or {}).get(name, "all_succeeded"),
        )
        for name, of in parents.items()
    ]


async def add(db: Database, woven: Woven, parents: Parents, **run_if: str) -> Moved:
    """Jobs that join a workflow; they may name those that are there."""
    new = {name: making.job_id() for name in parents}
    woven.ids.update(new)
    jobs = [
        making.new_job(
            id=new[name],
            workflow_id=woven.id,
            name=name,
            depends_on=tuple(of),
            parents=tuple(woven.ids[one] for one in of),
            run_if=run_if.get(name, "all_succeeded"),
        )
        for name, of in parents.items()
    ]
    _, _, moved = await db.submissions.store_graph(Submission(jobs, into=woven.id))
    return moved


async def depend(db: Database, parents: Sequence[JobId], run_if: str = "all_succeeded") -> JobId:
    """A loose job that depends on these, and where it stands at once."""
    job = making.new_job(parents=tuple(parents), depends_on=("…",) * len(parents), run_if=run_if)
    _, at, moved = await db.submissions.store_graph(Submission([job]))
    assert standing([job], moved, at)[job.id] == (await db.places([job.id]))[0]
    return job.id
