"""Graphs in Postgres: the transitions of jobs that others depend on, one transaction each.

In: what is to happen to jobs or workflows. Out: what it came to, and in `Moved` what else followed.
Always holds: what is decided about a child is decided in the transaction that ends its parent, or
in one that a stored spread stands for. If we die before a commit nothing has happened; after it,
only Redis and waiters were not told.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from penstock.domain.audit_log import Entry
from penstock.domain.effect import TELLS_NOTHING, Policy
from penstock.domain.errors import (
    WorkflowNotFound,
    WrongState,
    WrongWorkflowState,
)
from penstock.domain.ids import JobId
from penstock.domain.job import Started, State
from penstock.domain.letter import RETRY, Renewal
from penstock.domain.retry_plan import plan_retry
from penstock.domain.workflow import (
    LOOSE,
    Halt,
    RetryPlan,
    Workflow,
    WorkflowState,
)
from penstock.store.audit_log import note
from penstock.store.jobs import Settlement, Settlements, settlement, settlements
from penstock.store.lives import (
    StaysError,
    change,
    check_retry,
    homes_of_parents,
    nodes_of,
    note_workflow,
    plan_of,
    renew_linked,
    renew_plain,
    reopen,
)
from penstock.store.postgres import Postgres
from penstock.store.walk import Moved, Over, Walk

_GRAPHS_MAX = 20  # looked for at once


class Graphs:
    """`policy`: what is to be told of ends."""

    def __init__(self, postgres: Postgres, policy: Policy = TELLS_NOTHING) -> None:
        self._pg = postgres
        self.policy = policy

    async def settle(self, batch: Sequence[Settlement]) -> tuple[Settlements, Moved]:
        """As `Jobs.settle`, for attempts of jobs whose `graph_id` is known."""
        async with self._pg.transaction(
            before="before_settle_graph", after="after_settle_graph"
        ) as transaction:
            walk = Walk(transaction, self.policy)
            await walk.lock(_graph(one.job) for one in batch)
            found = await transaction.rows("settle_attempts", *settlement(batch, is_locked=True))
            made = settlements(found)
            graphs = {JobId(row[0]): row[4] for row in found}
            walk.note(
                [
                    Over(
                        one.job.id,
                        JobId(graphs[one.job.id]) if graphs[one.job.id] else None,
                        one.job.queue,
                        one.job.kind,
                        one.job.priority,
                        one.verdict.state,
                        told=True,
                    )
                    for one in batch
                    if one.verdict.state and (one.job.id, one.job.attempt) in made.settled
                ]
            )
            return made, await walk.finish()

    async def graph_of(self, id_: JobId) -> JobId | None:
        """The graph of a job: its workflow, or LOOSE if others depend, or depended, on it or it on
        others. None: neither, or there is no such job."""
        graph = await self._pg.value("graph_of", id_)
        return None if graph is None else JobId(graph)

    async def cancel_job(
        self, id_: JobId, graph: JobId, entry: Entry | None = None
    ) -> Moved | None:
        """Ends a job of a graph that waits; None if it doesn't wait."""
        async with self._pg.transaction(after="after_cancel_graph") as transaction:
            walk = Walk(transaction, self.policy)
            await walk.lock([graph])
            ended = await walk.end_blocked([id_], State.CANCELLED, "requested")
            ended = ended or await walk.end_due([id_], "requested")
            if not ended:
                return None
            if entry is not None:
                await note(transaction, entry.with_(after={"state": State.CANCELLED}))
            return await walk.finish()

    async def expire(self, limit: int) -> tuple[list[Over], Moved] | None:
        """Ends jobs of one graph whose time to live is over before they started. None: there are
        none."""
        found = await self._pg.rows("expired_in_graphs", limit)
        if not found:
            return None
        graph = found[0][1]
        here = [(JobId(id_), is_blocked) for id_, of, is_blocked in found if of == graph]
        async with self._pg.transaction(after="after_expire_graph") as transaction:
            walk = Walk(transaction, self.policy)
            await walk.lock([JobId(graph)])
            blocked = [id_ for id_, is_blocked in here if is_blocked]
            over = await walk.end_blocked(blocked, State.CANCELLED, "expired", expired=True)
            due = [id_ for id_, _is_blocked in here]  # one may have been unlocked meanwhile
            over += await walk.end_due(due, "expired", expired=True)
            return over, await walk.finish()

    async def cancel_workflow(self, id_: JobId, entry: Entry | None = None) -> Moved:
        """Lets nothing of it begin any more, and asks what runs to stop. WorkflowNotFound,
        WrongWorkflowState. `entry`: as the audit log tells of it."""
        async with self._pg.transaction(after="after_cancel_workflow") as transaction:
            walk = Walk(transaction, self.policy)
            found = await _locked(walk, id_)
            if found.state is not WorkflowState.RUNNING:
                raise WrongWorkflowState(found.state, "only a running one can be cancelled")
            if found.halt is not Halt.CANCEL:
                walk.change(replace(found, halt=Halt.CANCEL, halting=True))
            if entry is not None:
                halts = entry.changed("halt", found.halt, Halt.CANCEL)
                await note(transaction, halts)
            return await walk.finish()

    async def unfinished(self) -> list[JobId]:
        """Graphs in which children are still to be told, or jobs to be let go."""
        return [JobId(row[0]) for row in await self._pg.rows("unfinished_graphs", _GRAPHS_MAX)]

    async def advance(self, graph: JobId) -> Moved:
        """One more step of what is unfinished in a graph."""
        async with self._pg.transaction(
            before="before_advance", after="after_advance"
        ) as transaction:
            walk = Walk(transaction, self.policy)
            await walk.lock([graph])
            await walk.resume(graph)
            return await walk.finish()

    async def holders_to_stop(self) -> list[JobId]:
        """Nested workflows that don't know yet that their job was asked to stop."""
        return [JobId(row[0]) for row in await self._pg.rows("holders_to_stop", _GRAPHS_MAX)]

    async def retry_workflow(
        self,
        id_: JobId,
        names: Sequence[str] | None,
        renewal: Renewal = RETRY,
        *,
        dry_run: bool = False,
    ) -> tuple[RetryPlan, Moved]:
        """Runs again what of a workflow didn't succeed, of `names` and what depends on them
        or of all. A dry run moves nothing, and nor does one whose plan is without `renewal.only`.
        WorkflowNotFound, WrongWorkflowState, DuplicateJob; Contended while it is unfinished."""
        async with self._pg.transaction(after="after_retry_workflow") as transaction:
            walk = Walk(transaction, self.policy)
            found = await _locked(walk, id_)
            check_retry(found)
            nodes = await nodes_of(transaction, id_)
            again = await asyncio.to_thread(plan_retry, nodes, names)  # of 10,000 it takes 0.3 s
            plan = plan_of(nodes, again)
            if dry_run or (renewal.only is not None and renewal.only not in plan.ids):
                return plan, walk.moved
            if not again:
                raise WrongWorkflowState(found.state, "nothing in it can run again")
            await change(transaction, renewal)
            await reopen(transaction, walk, found, again, renewal)
            await note_workflow(transaction, found, again, renewal)
            return plan, await walk.finish()

    async def retry_job(self, id_: JobId, renewal: Renewal = RETRY) -> Moved | None:
        """A new life for a job that is over and didn't succeed; None: it can't be moved from where
        it stands. In a workflow it is a retry from that job. WrongState where its condition can't
        hold, WrongWorkflowState, DuplicateJob; Contended while its graph is unfinished."""
        found = await self._pg.rows("graphs_of", [id_])
        if not found:
            return None
        renewal = replace(renewal, only=id_)
        _id, workflow_id, _has_parents, name = found[0]
        if workflow_id is None:
            return await self._retry_loose(id_, renewal)
        state = await self._ended_state(id_)
        if state is None or state is State.SUCCEEDED:
            return None
        plan, moved = await self.retry_workflow(JobId(workflow_id), [name], renewal)
        if id_ not in plan.ids:
            raise WrongState(state, "its run_if can't hold as its parents stand: retry those first")
        return moved

    async def _ended_state(self, id_: JobId) -> State | None:
        found = await self._pg.rows("ended_parents", [id_])
        return State(found[0][1]) if found else None

    async def _retry_loose(self, id_: JobId, renewal: Renewal) -> Moved | None:
        try:
            async with self._pg.transaction(after="after_retry") as transaction:
                walk = Walk(transaction, self.policy)
                homes = await homes_of_parents(transaction, id_)
                await walk.lock({LOOSE, *homes.values()})
                if not (await transaction.rows("has_edges", id_))[0][0]:
                    return await renew_plain(transaction, id_, renewal)
                pruned = {one for one, home in homes.items() if home not in walk.workflows}
                return await renew_linked(transaction, walk, id_, renewal, pruned)
        except StaysError:
            return None


def _graph(job: Started) -> JobId:
    assert job.graph_id is not None
    return job.graph_id


async def _locked(walk: Walk, id_: JobId) -> Workflow:
    await walk.lock([id_])
    if id_ not in walk.workflows:
        raise WorkflowNotFound
    return walk.workflows[id_]
