"""New lives: jobs that are over and didn't succeed run again, with all that follows from it.

In: an open transaction that holds the locks of the graphs at hand. Out: what was moved, and the
dead letters of what was moved resolved. Always holds: edges from what runs again count anew; what
succeeded is kept. If we die before the commit nothing has happened.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from penstock.domain import ids
from penstock.domain.errors import Contended, DuplicateJob, WrongState, WrongWorkflowState
from penstock.domain.ids import BYTES, JobId
from penstock.domain.job import Due, State
from penstock.domain.letter import RETRY, Renewal, Resolution
from penstock.domain.retry_plan import Again, Node
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
from penstock.store.audit_log import note
from penstock.store.jobs import ROWS_MAX
from penstock.store.postgres import Transaction
from penstock.store.walk import Moved, Walk, count_columns

_EDGES_MAX = 10_000  # untold by one statement


class StaysError(Exception):
    """The job can't be moved from where it stands: nothing of the transaction is to stay."""


def is_told(child: JobId, after: JobId | None) -> bool:
    """Whether a child counts a parent that is over, whose spread, if it has one, has come so far:
    else the spread will tell it."""
    return after is None or child <= after


async def renew_plain(transaction: Transaction, id_: JobId, renewal: Renewal) -> Moved:
    """A new life for a job of no graph. StaysError."""
    await change(transaction, renewal)
    found = await transaction.rows("retry_ended", id_, renewal.delay_s)
    if not found:
        raise StaysError
    (queue, kind, priority, at, was) = found[0]
    await resolve(transaction, {id_: State(was)}, renewal)
    await _note(transaction, State(was), renewal)
    return Moved(due=[_due(id_, queue, kind, priority, at)])


async def renew_linked(
    transaction: Transaction,
    walk: Walk,
    id_: JobId,
    renewal: Renewal,
    pruned: Collection[JobId],
) -> Moved:
    """A new life for a job of the loose graph. StaysError, WrongState, DuplicateJob, Contended."""
    again = await _loose_again(transaction, id_, pruned)
    if again is None:
        raise StaysError
    await change(transaction, renewal)
    await _reopen(transaction, walk, [again], LOOSE, renewal)
    await _note(transaction, again.was, renewal)
    return await walk.finish()


def check_retry(found: Workflow) -> None:
    if found.state is WorkflowState.RUNNING and found.halt is Halt.CANCEL:
        raise WrongWorkflowState(found.state, "it is being cancelled: wait until that is over")
    if found.state is not WorkflowState.RUNNING and found.holder is not None:
        holder = ids.text(found.holder)
        why = (
            f"it was an attempt of the job {holder}: POST /v1/jobs/{holder}/retry runs again what "
            "didn't succeed in it"
        )
        raise WrongWorkflowState(found.state, why, found.holder)


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


def plan_of(nodes: Iterable[Node], again: Sequence[Again]) -> RetryPlan:
    runs = {one.id for one in again}
    return RetryPlan(
        again=[node.name for node in nodes if node.id in runs],
        reused=[node.name for node in nodes if node.id not in runs and node.state is not None],
        ids=[one.id for one in again],
    )


async def reopen(
    transaction: Transaction,
    walk: Walk,
    found: Workflow,
    again: Sequence[Again],
    renewal: Renewal = RETRY,
) -> None:
    """Gives jobs of a locked workflow a new life. DuplicateJob, Contended."""
    if found.halting or await transaction.rows("spreads_of", found.id, 1):
        raise _unfinished()
    await _reopen(transaction, walk, again, found.id, renewal)
    counts = found.counts
    for one in again:
        counts = counts.plus(one.was, -1)
    running = WorkflowState.RUNNING
    walk.change(replace(found, state=running, counts=counts, halt=None, halting=False))


async def _reopen(
    transaction: Transaction,
    walk: Walk,
    again: Sequence[Again],
    graph: JobId,
    renewal: Renewal,
) -> None:
    """Moves them, resolves their letters, and takes back what
    blocked children were told of their last lives."""
    for start in range(0, len(again), ROWS_MAX):
        part = again[start : start + ROWS_MAX]
        columns = (*_again_columns(part), graph, renewal.delay_s)
        found = await transaction.rows("reopen_jobs", *columns)
        if len(found) < len(part):
            await _refuse_duplicates(transaction, part, {row[0] for row in found})
        for id_, queue, kind, priority, at, is_due, _state in found:
            due = Due(JobId(id_), queue, kind, priority, rows.ms(at))
            (walk.moved.due if is_due else walk.moved.blocked).append(due)
    await resolve(transaction, {one.id: one.was for one in again}, renewal)
    await _untell(transaction, again)


def _again_columns(part: Sequence[Again]) -> list[list[object]]:
    return [
        [one.id for one in part],
        [one.is_due for one in part],
        [one.parents for one in part],
        *rows.counts([one.counts for one in part]),
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


async def homes_of_parents(transaction: Transaction, id_: JobId) -> dict[JobId, JobId]:
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


def _due(id_: JobId, queue: str, kind: str, priority: int, ready_at: datetime) -> Due:
    return Due(id_, queue, kind, priority, rows.ms(ready_at))


async def change(transaction: Transaction, renewal: Renewal) -> None:
    """Gives the job another payload or queue, before it is moved."""
    if not renewal.changes:
        return
    found = await transaction.rows("change_job", renewal.only, renewal.payload, renewal.queue)
    if found and found[0][0] is not None and renewal.queue is not None:
        await transaction.rows("add_queues_to_workflow", found[0][0], [renewal.queue])


async def note_workflow(
    transaction: Transaction, found: Workflow, again: Sequence[Again], renewal: Renewal
) -> None:
    """Has the audit log tell of a retry of a workflow, or from one of its jobs."""
    was: State | WorkflowState = found.state
    if renewal.only is not None:
        was = next(one.was for one in again if one.id == renewal.only)
    await _note(transaction, was, renewal, jobs=len(again))


async def _note(
    transaction: Transaction, was: State | WorkflowState, renewal: Renewal, **details: Any
) -> None:
    if renewal.entry is None:
        return
    if renewal.payload is not None:
        details["payload_changed"] = True
    if renewal.queue is not None:
        details["new_queue"] = renewal.queue
    await note(transaction, renewal.entry.with_(before={"state": was}, **details))


async def resolve(transaction: Transaction, moved: Mapping[JobId, State], renewal: Renewal) -> None:
    """Resolves the letters of jobs that were moved from these ends. WrongState where a replay has
    none to resolve: it was discarded, or the job wasn't dead."""
    dead = [id_ for id_, was in moved.items() if was is State.DEAD]
    others = [id_ for id_ in dead if id_ != renewal.only]
    if others:
        await transaction.rows("resolve_letters", others, Resolution.RETRIED, renewal.by or None)
    if renewal.only is None or (
        renewal.only not in dead and renewal.how is not Resolution.REPLAYED
    ):
        return
    found = await transaction.rows(
        "resolve_letters", [renewal.only], renewal.how, renewal.by or None
    )
    if renewal.how is Resolution.REPLAYED and not found:
        raise no_letter(moved[renewal.only])


def no_letter(state: str) -> WrongState:
    """A job whose last death is dealt with."""
    return WrongState(state, "it has no dead letter that is open; to run it again, retry it")
