"""Graphs for tests of the store: workflows made of names, and transactions held before their
COMMIT."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from penstock import chaos
from penstock.domain.attempt import Ending
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow, OnFailure
from penstock.store.jobs import Settlements
from penstock.store.walk import Moved
from tests.support import making
from tests.support.database import Database, settlement, until_somebody_waits_for_a_lock
from tests.support.weaving import Parents, new_jobs, settle

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """A workflow that was submitted: its id, and those of its jobs by name."""

    id: JobId
    ids: dict[str, JobId]

    def of(self, *names: str) -> list[JobId]:
        return [self.ids[name] for name in names]


def submission(
    parents: Parents, on_failure: OnFailure = OnFailure.CONTINUE, **run_ifs: str
) -> tuple[Submission, Made]:
    """A workflow. `run_ifs`: conditions by name, where they aren't the default."""
    id_ = making.job_id()
    jobs = new_jobs(parents, id_, run_ifs)
    made = Made(id_, {str(job.name): job.id for job in jobs})
    return Submission(jobs, workflow=NewWorkflow(id_, "test", on_failure)), made


async def stored(db: Database, one: Submission) -> Moved:
    _, _, moved = await db.submissions.store_graph(one)
    return moved


async def workflow(
    db: Database, parents: Parents, on_failure: OnFailure = OnFailure.CONTINUE, **run_ifs: str
) -> Made:
    """The same, stored."""
    one, made = submission(parents, on_failure, **run_ifs)
    await stored(db, one)
    return made


def child_of(*parents: JobId, run_if: str = "all_succeeded", **fields: Any) -> NewJob:
    """A job outside of workflows that waits for these."""
    named = tuple(parent.hex() for parent in parents)
    return making.new_job(parents=parents, depends_on=named, run_if=run_if, **fields)


async def started(db: Database, *ids: JobId) -> list[Started]:
    """Attempts of these under a new worker's name, which must be due."""
    found = await db.jobs.start(ids, await db.worker())
    assert len(found) == len(ids)
    return found


async def settled(db: Database, *jobs: Started, ending: Ending = making.SUCCESS) -> Moved:
    """What followed from these ends, in one transaction."""
    return await settle(db, *((job, ending) for job in jobs))


async def settled_plainly(db: Database, job: Started) -> Settlements:
    """As a settler does it that knows of no graph."""
    made: Settlements = await db.jobs.settle([settlement(job, making.SUCCESS)])
    return made


@asynccontextmanager
async def held(patch: pytest.MonkeyPatch, point: str) -> AsyncIterator[asyncio.Event]:
    """The first to come to a chaos point waits there until the block's end: if it stands behind a
    COMMIT, just before that. The event is set once somebody does."""
    arrived, let_go = asyncio.Event(), asyncio.Event()

    async def wait(name: str) -> None:
        if name == point and not arrived.is_set():
            arrived.set()
            await let_go.wait()

    async def commit(name: str, send: Callable[[], Awaitable[T]], _cut: object) -> T:
        await wait(name)
        return await send()

    with patch.context() as patched:
        patched.setattr(chaos, "point", wait)
        patched.setattr(chaos, "answer", commit)
        try:
            yield arrived
        finally:
            let_go.set()


async def until_locked_out(db: Database, second: "asyncio.Task[Any]") -> str:
    """Returns once the second transaction waits for a lock; of which type."""
    await until_somebody_waits_for_a_lock(db)
    assert not second.done()
    found = await db.session.fetchval("SELECT locktype FROM pg_locks WHERE NOT granted LIMIT 1")
    return str(found)
