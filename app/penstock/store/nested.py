"""Workflows that are the attempt of a job: stored, and given its running row, in one transaction.

Safe to repeat: a row that the workflow has already is left to it. If we die before the commit, the
row stands under the replica's name, and the reaper finds it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penstock.domain.effect import TELLS_NOTHING, Policy
from penstock.domain.errors import DuplicateJob
from penstock.domain.graph import DEPTH_MAX
from penstock.domain.ids import JobId
from penstock.domain.job import Due, Started
from penstock.domain.retry_plan import plan_retry
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, WorkflowState
from penstock.store import rows
from penstock.store.graph_submissions import store_workflow
from penstock.store.lives import nodes_of, reopen
from penstock.store.postgres import Postgres, Transaction
from penstock.store.submissions import first_ready_at, holders_of
from penstock.store.walk import Moved, Walk


@dataclass(frozen=True, slots=True)
class Nesting:
    """What came of it: the new workflow's first places in line, and what followed; or that the job
    was asked to stop, or why it can't be."""

    moved: Moved = field(default_factory=Moved)
    due: Sequence[Due] = ()
    blocked: Sequence[Due] = ()
    asked_to_stop: bool = False
    refused: str | None = None


class Nested:
    def __init__(self, postgres: Postgres, policy: Policy = TELLS_NOTHING) -> None:
        self._pg = postgres
        self.policy = policy

    async def store(self, job: Started, submission: Submission) -> Nesting:
        """Makes the workflow of a submission the attempt of its holder, `job`. DuplicateJob,
        Contended."""
        new = submission.workflow
        assert new is not None
        async with self._pg.transaction(before="before_nest", after="after_nest") as transaction:
            found = await transaction.rows("nested_in", job.id)
            existing = JobId(found[0][0]) if found else None
            outer = job.graph_id if job.graph_id != LOOSE else None
            walk = Walk(transaction, self.policy)
            await walk.lock({one for one in (existing, outer) if one is not None})
            if existing not in walk.workflows:
                existing = None  # that of a life long ago was pruned just now
            around = walk.workflows[outer] if outer is not None else None
            ancestors = [*around.ancestors, around.id] if around is not None else []
            if len(ancestors) >= DEPTH_MAX:
                return Nesting(refused=f"workflows nest at most {DEPTH_MAX} deep")
            inner = existing or new.id
            fence = (job.id, job.attempt, job.worker)
            if not await transaction.rows("give_to_workflow", *fence, inner):
                return await _not_given(transaction, job)
            if existing is not None:
                return Nesting(await _go_on(transaction, walk, existing))
            await _refuse_duplicates(transaction, submission)
            at, moved = await store_workflow(
                transaction, walk, new, submission.jobs, ancestors=ancestors
            )
        first = [
            Due(one.id, one.queue, one.kind, one.priority, rows.ms(first_ready_at(one, at)))
            for one in submission.jobs
        ]
        has_parents = {one.id for one in submission.jobs if one.parents}
        return Nesting(
            moved,
            due=[one for one in first if one.id not in has_parents],
            blocked=[one for one in first if one.id in has_parents],
        )


async def _not_given(transaction: Transaction, job: Started) -> Nesting:
    """An earlier sending gave it already, it was asked to stop, or it isn't ours any more."""
    found = await transaction.rows("running_now", job.id, job.attempt, job.worker)
    return Nesting(asked_to_stop=bool(found))


async def _refuse_duplicates(transaction: Transaction, submission: Submission) -> None:
    holders = await holders_of(transaction, submission.unique_keys())
    held = {
        place: holders[job.queue, job.unique_key]
        for place, job in enumerate(submission.jobs)
        if job.unique_key is not None and (job.queue, job.unique_key) in holders
    }
    if held:
        raise DuplicateJob(held)


async def _go_on(transaction: Transaction, walk: Walk, existing: JobId) -> Moved:
    """A second life: what of the first life's workflow didn't succeed runs again. With nothing to
    run it ends at once, as it stands."""
    found = walk.workflows[existing]
    if found.state is not WorkflowState.RUNNING:
        nodes = await nodes_of(transaction, existing)
        if again := await asyncio.to_thread(plan_retry, nodes, None):
            await reopen(transaction, walk, found, again)
        else:
            walk.change(replace(found, state=WorkflowState.RUNNING, halt=None))
    return await walk.finish()
