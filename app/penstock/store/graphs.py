"""Graphs in Postgres: the transitions of jobs that others depend on, one transaction each.

In: what is to happen to jobs or workflows. Out: what it came to, and in `Moved` what else followed.
Always holds: what is decided about a child is decided in the transaction that ends its parent, or
in one that a stored spread stands for. If we die before a commit nothing has happened; after it,
only Redis and waiters were not told.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from penstock.domain import ids
from penstock.domain.errors import (
    Contended,
    DuplicateJob,
    WorkflowNotFound,
    WrongState,
    WrongWorkflowState,
)
from penstock.domain.ids import BYTES, JobId
from penstock.domain.job import Due, Started, State
from penstock.domain.retry_plan import Again, Node, plan_retry
from penstock.domain.workflow import (
    LOOSE,
    Counts,
    Decision,
    Halt,
    RetryPlan,
    RunIf,
    Workflow,
    WorkflowState,
    decide,
)
from penstock.store import rows
from penstock.store.jobs import ROWS_MAX, Settlement, Settlements, settlement, settlements
from penstock.store.postgres import Postgres, Transaction
from penstock.store.walk import Moved, Over, Walk, count_columns

_GRAPHS_MAX = 20  # looked for at once
_EDGES_MAX = 10_000  # untold by one statement


class Graphs:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def settle(self, batch: Sequence[Settlement]) -> tuple[Settlements, Moved]:
        """As `Jobs.settle`, for attempts of jobs whose `graph_id` is known."""
        async with self._pg.transaction(
            before="before_settle_graph", after="after_settle_graph"
        ) as transaction:
            walk = Walk(transaction)
            await walk.lock(_graph(one.job) for one in batch)
            found = await transaction.rows("settle_attempts", *settlement(batch), True)
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

    async def cancel_job(self, id_: JobId, graph: JobId) -> Moved | None:
        """Ends a job of a graph that waits; None if it doesn't wait."""
        async with self._pg.transaction(after="after_cancel_graph") as transaction:
            walk = Walk(transaction)
            await walk.lock([graph])
            ended = await walk.end_blocked([id_], State.CANCELLED, "requested")
            ended = ended or await walk.end_due([id_], "requested")
            return await walk.finish() if ended else None

    async def expire(self, limit: int) -> tuple[list[Over], Moved] | None:
        """Ends jobs of one graph whose time to live is over before they started. None: there are
        none."""
        found = await self._pg.rows("expired_in_graphs", limit)
        if not found:
            return None
        graph = found[0][1]
        here = [(JobId(id_), is_blocked) for id_, of, is_blocked in found if of == graph]
        async with self._pg.transaction(after="after_expire_graph") as transaction:
            walk = Walk(transaction)
            await walk.lock([JobId(graph)])
            blocked = [id_ for id_, is_blocked in here if is_blocked]
            over = await walk.end_blocked(blocked, State.CANCELLED, "expired", expired=True)
            due = [id_ for id_, _is_blocked in here]  # one may have been unlocked meanwhile
            over += await walk.end_due(due, "expired", expired=True)
            return over, await walk.finish()

    async def cancel_workflow(self, id_: JobId) -> Moved:
        """Lets nothing of it begin any more, and asks what runs to stop. WorkflowNotFound,
        WrongWorkflowState."""
        async with self._pg.transaction(after="after_cancel_workflow") as transaction:
            walk = Walk(transaction)
            found = await _locked(walk, id_)
            if found.state is not WorkflowState.RUNNING:
                raise WrongWorkflowState(found.state, "only a running one can be cancelled")
            if found.halt is not Halt.CANCEL:
                walk.change(replace(found, halt=Halt.CANCEL, halting=True))
            return await walk.finish()

    async def unfinished(self) -> list[JobId]:
        """Graphs in which children are still to be told, or jobs to be let go."""
        return [JobId(row[0]) for row in await self._pg.rows("unfinished_graphs", _GRAPHS_MAX)]

    async def advance(self, graph: JobId) -> Moved:
        """One more step of what is unfinished in a graph."""
        async with self._pg.transaction(
            before="before_advance", after="after_advance"
        ) as transaction:
            walk = Walk(transaction)
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
        *,
        dry_run: bool = False,
        only: JobId | None = None,
    ) -> tuple[RetryPlan, Moved]:
        """Runs again what of a workflow didn't succeed, of `names` and what is downstream of them
        or of all. A dry run moves nothing, and nor does one whose plan is without `only`.
        WorkflowNotFound, WrongWorkflowState, DuplicateJob; Contended while it is unfinished."""
        async with self._pg.transaction(after="after_retry_workflow") as transaction:
            walk = Walk(transaction)
            found = await _locked(walk, id_)
            _check_retry(found)
            nodes = await nodes_of(transaction, id_)
            again = await asyncio.to_thread(plan_retry, nodes, names)  # of 10,000 it takes 0.3 s
            plan = _told(nodes, again)
            if dry_run or (only is not None and only not in plan.ids):
                return plan, walk.moved
            if not again:
                raise WrongWorkflowState(found.state, "nothing in it can run again")
            await reopen(transaction, walk, found, again)
            return plan, await walk.finish()

    async def retry_job(self, id_: JobId) -> Moved | None:
        """A new life for a job that is over and didn't succeed; None: it can't be moved from where
        it stands. In a workflow it is a retry from that job. WrongState where its condition can't
        hold, WrongWorkflowState, DuplicateJob; Contended while its graph is unfinished."""
        found = await self._pg.rows("graphs_of", [id_])
        if not found:
            return None
        _id, workflow_id, _has_parents, name = found[0]
        if workflow_id is None:
            return await self._retry_loose(id_)
        state = await self._ended_state(id_)
        if state is None or state is State.SUCCEEDED:
            return None
        plan, moved = await self.retry_workflow(JobId(workflow_id), [name], only=id_)
        if id_ not in plan.ids:
            raise WrongState(state, "its run_if can't hold as its parents stand: retry those first")
        return moved

    async def _ended_state(self, id_: JobId) -> State | None:
        found = await self._pg.rows("ended_parents", [id_])
        return State(found[0][1]) if found else None

    async def _retry_loose(self, id_: JobId) -> Moved | None:
        async with self._pg.transaction(after="after_retry") as transaction:
            walk = Walk(transaction)
            homes = await _homes_of_parents(transaction, id_)
            await walk.lock({LOOSE, *homes.values()})
            if not (await transaction.rows("has_edges", id_))[0][0]:
                found = await transaction.rows("retry_ended", id_)
                return Moved(due=[_due(id_, *row) for row in found]) if found else None
            pruned = {one for one, home in homes.items() if home not in walk.workflows}
            again = await _loose_again(transaction, id_, pruned)
            if again is None:
                return None
            await _reopen(transaction, walk, [again], LOOSE)
            return await walk.finish()


def _due(id_: JobId, queue: str, kind: str, priority: int, ready_at: datetime) -> Due:
    return Due(id_, queue, kind, priority, rows.ms(ready_at))


def is_told(child: JobId, after: JobId | None) -> bool:
    """Whether a child counts a parent that is over, whose spread, if it has one, has come so far:
    else the spread will tell it."""
    return after is None or child <= after


def _graph(job: Started) -> JobId:
    assert job.graph_id is not None
    return job.graph_id


async def _locked(walk: Walk, id_: JobId) -> Workflow:
    await walk.lock([id_])
    if id_ not in walk.workflows:
        raise WorkflowNotFound
    return walk.workflows[id_]


def _check_retry(found: Workflow) -> None:
    if found.state is WorkflowState.RUNNING and found.halt is Halt.CANCEL:
        raise WrongWorkflowState(found.state, "it is being cancelled: wait until that is over")
    if found.state is not WorkflowState.RUNNING and found.holder is not None:
        why = f"it was an attempt of the job {ids.text(found.holder)}: retry that job"
        raise WrongWorkflowState(found.state, why)


def _unfinished() -> Contended:
    """What is still to be told would be told twice, or of a life that is over."""
    return Contended("the graph is still telling of earlier ends")


async def nodes_of(transaction: Transaction, id_: JobId) -> list[Node]:
    """The jobs of a locked workflow."""
    found = await transaction.rows("nodes_of", id_)
    parents = await _parents_of(transaction, [JobId(row[0]) for row in found if row[2]])
    return [
        Node(
            JobId(job),
            name,
            RunIf(run_if) if run_if else None,
            tuple(parents.get(JobId(job), ())),
            State(state) if state else None,
        )
        for job, name, run_if, state in found
    ]


async def _parents_of(
    transaction: Transaction, children: Sequence[JobId]
) -> dict[JobId, list[JobId]]:
    found: dict[JobId, list[JobId]] = {}
    if children:
        for child, parent, _graph in await transaction.rows("edges_into", children):
            found.setdefault(JobId(child), []).append(JobId(parent))
    return found


def _told(nodes: Iterable[Node], again: Sequence[Again]) -> RetryPlan:
    runs = {one.id for one in again}
    return RetryPlan(
        again=[node.name for node in nodes if node.id in runs],
        reused=[node.name for node in nodes if node.id not in runs and node.state is not None],
        ids=[one.id for one in again],
    )


async def reopen(
    transaction: Transaction, walk: Walk, found: Workflow, again: Sequence[Again]
) -> None:
    """Gives jobs of a locked workflow a new life. DuplicateJob, Contended."""
    if found.halting or await transaction.rows("spreads_of", found.id, 1):
        raise _unfinished()
    await _reopen(transaction, walk, again, found.id)
    counts = found.counts
    for one in again:
        counts = counts.plus(one.was, -1)
    running = WorkflowState.RUNNING
    walk.change(replace(found, state=running, counts=counts, halt=None, halting=False))


async def _reopen(
    transaction: Transaction, walk: Walk, again: Sequence[Again], graph: JobId
) -> None:
    """Moves them, and takes back what blocked children were told of their last lives."""
    for start in range(0, len(again), ROWS_MAX):
        part = again[start : start + ROWS_MAX]
        found = await transaction.rows("reopen_jobs", *_again_columns(part), graph)
        if len(found) < len(part):
            await _refuse_duplicates(transaction, part, {row[0] for row in found})
        for id_, queue, kind, priority, at, is_due, _state in found:
            due = Due(JobId(id_), queue, kind, priority, rows.ms(at))
            (walk.moved.due if is_due else walk.moved.blocked).append(due)
    await _untell(transaction, again)


def _again_columns(part: Sequence[Again]) -> list[list[object]]:
    return [
        [one.id for one in part],
        [one.is_due for one in part],
        [one.parents for one in part],
        [one.counts.succeeded for one in part],
        [one.counts.dead for one in part],
        [one.counts.cancelled for one in part],
        [one.counts.skipped for one in part],
    ]


async def _untell(transaction: Transaction, again: Sequence[Again]) -> None:
    """Those that run again have their counts made anew; other blocked children lose a count."""
    ours = {one.id for one in again}
    left = [(one, bytes(BYTES)) for one in again]
    while left:
        parents, afters = [one.id for one, _ in left], [after for _, after in left]
        edges = await transaction.rows("edges_of", parents, afters, _EDGES_MAX)
        if any(graph == LOOSE for _, _, graph in edges):
            await transaction.rows("lock_loose")
        counts: dict[JobId, Counts] = {}
        for place, child, _graph in edges:
            if child not in ours:
                counts[child] = counts.get(child, Counts()).plus(left[place][0].was, -1)
        if counts:
            await transaction.rows("count_parents", *count_columns(counts))
        if len(edges) < _EDGES_MAX:
            return
        place, after, _graph = edges[-1]
        left = [(left[place][0], after), *left[place + 1 :]]


async def _refuse_duplicates(
    transaction: Transaction, part: Sequence[Again], moved: set[bytes]
) -> None:
    left = [one.id for one in part if one.id not in moved]
    held: dict[int, JobId] = {}
    for place, id_ in enumerate(left):
        found = await transaction.rows("state_of", id_)
        if found and found[0][1] is not None:
            held[place] = JobId(found[0][1])
    if held:
        raise DuplicateJob(held)
    raise Contended("jobs of the graph keep moving")


async def _homes_of_parents(transaction: Transaction, id_: JobId) -> dict[JobId, JobId]:
    """Those of its parents that stand in a workflow, with it: they may be retried meanwhile."""
    parents = (await _parents_of(transaction, [id_])).get(id_, [])
    found = await transaction.rows("graphs_of", parents) if parents else []
    return {JobId(row[0]): JobId(row[1]) for row in found if row[1] is not None}


async def _loose_again(
    transaction: Transaction, id_: JobId, pruned: Collection[JobId]
) -> Again | None:
    """The new life of an ended job of the loose graph, by where its parents stand now; those that
    are being pruned with their workflow count no more."""
    found = await transaction.rows("ended_parents", [id_])
    if not found or found[0][1] == State.SUCCEEDED:
        return None
    if found[0][2] is not None:
        raise _unfinished()
    was = State(found[0][1])
    all_parents = (await _parents_of(transaction, [id_])).get(id_, [])
    parents = [one for one in all_parents if one not in pruned]
    if not parents:
        return Again(id_, was, parents=0, counts=Counts(), is_due=True)
    counts = Counts()
    for _id, state, after in await transaction.rows("ended_parents", parents):
        if is_told(id_, after):
            counts = counts.plus(State(state))
    run_if = RunIf((await transaction.rows("run_if_of", id_))[0][0])
    match decide(run_if, counts, len(parents)):
        case Decision.SKIP:
            why = f"its run_if {run_if} can't hold as its parents stand: retry those first"
            raise WrongState(was, why)
        case decision:
            return Again(id_, was, len(parents), counts, is_due=decision is Decision.RUN)
