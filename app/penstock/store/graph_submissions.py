"""Submissions of jobs that depend on others: a workflow, jobs that join one, loose jobs.

In: an open transaction and what it shall store. Out: places, as they are after the commit. Always
holds: the graph is locked first; where a parent stands is looked at after that, and a parent that
isn't over yet is marked in its place, so that who ends it, waiting for our commit, sees the child
(pitfalls.md, A9). Safe to repeat: jobs that exist are passed over, with their places and edges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock.domain.errors import (
    Contended,
    NameTaken,
    ParentNotFound,
    TooLarge,
    WorkflowNotFound,
    WrongWorkflowState,
)
from penstock.domain.graph import EDGES_MAX, JOBS_MAX
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, State
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, Counts, NewWorkflow, WorkflowState
from penstock.store import rows
from penstock.store.jobs import ROWS_MAX
from penstock.store.lives import is_told
from penstock.store.postgres import Transaction
from penstock.store.walk import Moved, Walk

_LOOKS_MAX = 20  # at parents that move from place to place meanwhile


@dataclass(slots=True)
class _Parents:
    """Where parents stand that are no part of the submission: those that are over, and the last
    child that each has told so far, if it has more to tell."""

    states: dict[JobId, State]
    afters: dict[JobId, JobId | None]

    def ended(self, job: NewJob) -> Counts:
        """How many parents of a job are over, for all that it will ever be told."""
        counts = Counts()
        for parent in job.parents:
            if parent in self.states and is_told(job.id, self.afters[parent]):
                counts = counts.plus(self.states[parent])
        return counts


async def store_graph(
    transaction: Transaction, walk: Walk, one: Submission, jobs: Sequence[NewJob]
) -> tuple[datetime, Moved]:
    """Stores `jobs` of a submission; the time of it by Postgres, and what followed at once.

    WorkflowNotFound, WrongWorkflowState, NameTaken, ParentNotFound, TooLarge, Contended.
    """
    if one.workflow is not None:
        return await store_workflow(transaction, walk, one.workflow, jobs)
    homes = await _homes(transaction, jobs)
    graph = one.into or LOOSE
    await walk.lock({graph} | {home for home in homes.values() if home is not None})
    if one.into is not None:
        jobs = await _joining(transaction, walk, one.into, jobs)
    _refuse_missing(jobs, {one for one, home in homes.items() if _is_pruned(home, walk)})
    parents = await _parents(transaction, homes)
    at, new = await _insert(transaction, jobs, graph, parents)
    stored = [job for job in jobs if job.id in new]
    if one.into is not None and stored:
        await _grow(transaction, walk, one.into, stored)
    return at, await _placed(transaction, walk, stored)


async def store_workflow(
    transaction: Transaction,
    walk: Walk,
    workflow: NewWorkflow,
    jobs: Sequence[NewJob],
    ancestors: Sequence[JobId] = (),
) -> tuple[datetime, Moved]:
    """Stores a new workflow with its jobs. `ancestors`: the workflows that its holder is in, locked
    by `walk`."""
    queues = sorted({job.queue for job in jobs})
    found = await transaction.rows(
        "add_workflow",
        *(workflow.id, workflow.name, workflow.on_failure, queues, workflow.created_by),
        *(workflow.traceparent, workflow.holder, list(ancestors), len(jobs), workflow.notify),
    )
    if not found:  # an earlier sending has stored it
        return await _now(transaction), walk.moved
    at, new = await _insert(transaction, jobs, workflow.id, _Parents({}, {}))
    return at, await _placed(transaction, walk, [job for job in jobs if job.id in new])


async def _now(transaction: Transaction) -> datetime:
    at: datetime = (await transaction.rows("now"))[0][0]
    return at


async def _joining(
    transaction: Transaction, walk: Walk, into: JobId, jobs: Sequence[NewJob]
) -> list[NewJob]:
    """Those that aren't there yet, if the workflow takes them."""
    found = walk.workflows.get(into)
    if found is None:
        raise WorkflowNotFound
    there = {
        row[0]: JobId(row[1])
        for row in await transaction.rows("names_taken", into, [job.name for job in jobs])
    }
    taken = {
        i: job.name
        for i, job in enumerate(jobs)
        if job.name and there.get(job.name, job.id) != job.id
    }
    if taken:
        raise NameTaken(taken)
    ids = set(there.values())
    new = [job for job in jobs if job.id not in ids]
    if new and (found.state is not WorkflowState.RUNNING or found.halt is not None):
        why = "only one that runs and that nothing stops takes more jobs"
        raise WrongWorkflowState(found.state, why)
    if found.total + len(new) > JOBS_MAX:
        raise TooLarge(f"a workflow has at most {JOBS_MAX} jobs; this one has {found.total}")
    edges = sum(len(job.parents) for job in new)
    if edges and edges + (await transaction.rows("edge_count", into))[0][0] > EDGES_MAX:
        raise TooLarge(f"a workflow has at most {EDGES_MAX} edges")
    return new


async def _grow(transaction: Transaction, walk: Walk, into: JobId, new: Sequence[NewJob]) -> None:
    found = walk.workflows[into]
    walk.change(replace(found, total=found.total + len(new)))
    queues = sorted({job.queue for job in new})
    await transaction.rows("add_queues_to_workflow", into, queues)


async def _homes(transaction: Transaction, jobs: Sequence[NewJob]) -> dict[JobId, JobId | None]:
    """The workflows of all parents that aren't part of the submission. Raises ParentNotFound."""
    ours = {job.id for job in jobs}
    outside = sorted({parent for job in jobs for parent in job.parents} - ours)
    if not outside:
        return {}
    found = await transaction.rows("graphs_of", outside)
    homes = {JobId(row[0]): JobId(row[1]) if row[1] else None for row in found}
    _refuse_missing(jobs, set(outside) - homes.keys())
    return homes


async def _parents(transaction: Transaction, homes: Mapping[JobId, JobId | None]) -> _Parents:
    """Where they stand, after their graphs were locked. Those of workflows stay; plain ones may
    move from place to place until they are marked: so it looks until each is found in one."""
    parents = _Parents({}, {})
    left = set(homes)
    for _ in range(_LOOKS_MAX):
        plain = sorted(id_ for id_ in left if homes[id_] is None)
        if plain:
            for query in ("link_due", "link_running", "link_blocked"):
                left -= {row[0] for row in await transaction.rows(query, plain, LOOSE)}
            await transaction.rows("link_ended", sorted(left.intersection(plain)), LOOSE)
        if left:
            for id_, state, after in await transaction.rows("ended_parents", sorted(left)):
                parents.states[id_] = State(state)
                parents.afters[id_] = after
                left.discard(id_)
        left = {id_ for id_ in left if homes[id_] is None}
        if not left:
            return parents
    raise Contended("jobs that others shall depend on keep moving, or were pruned just now")


def _is_pruned(home: JobId | None, walk: Walk) -> bool:
    """Whether a parent's workflow is gone, and the parent about to go."""
    return home is not None and home not in walk.workflows


def _refuse_missing(jobs: Sequence[NewJob], missing: set[JobId]) -> None:
    places = {
        (i, j): parent
        for i, job in enumerate(jobs)
        for j, parent in enumerate(job.parents)
        if parent in missing
    }
    if places:
        raise ParentNotFound(places)


async def _insert(
    transaction: Transaction, jobs: Sequence[NewJob], graph: JobId, parents: _Parents
) -> tuple[datetime, set[JobId]]:
    """Stores jobs, places and edges; the time, and the ids that are new."""
    new: set[JobId] = set()
    waited_for = {parent for job in jobs for parent in job.parents}
    at = None if jobs else await _now(transaction)
    for start in range(0, len(jobs), ROWS_MAX):
        part = jobs[start : start + ROWS_MAX]
        is_in = [graph != LOOSE or job.parents or job.id in waited_for for job in part]
        graphs = [graph if one else None for one in is_in]
        ended = [parents.ended(job) for job in part]
        columns = rows.graph_submission(part, graphs, ended)
        ((at, stored, lost),) = await transaction.rows("submit_graph", *columns)
        if lost:
            raise Contended("unique keys were taken meanwhile")
        new.update(map(JobId, stored))
        await _add_edges(transaction, [job for job in part if job.id in new], graph)
    assert at is not None
    return at, new


async def _add_edges(transaction: Transaction, part: Sequence[NewJob], graph: JobId) -> None:
    pairs = [(parent, job.id) for job in part for parent in job.parents]
    for start in range(0, len(pairs), 10 * ROWS_MAX):
        some = pairs[start : start + 10 * ROWS_MAX]
        parents, children = [one for one, _ in some], [one for _, one in some]
        await transaction.rows("add_edges", parents, children, [graph] * len(some))


async def _placed(transaction: Transaction, walk: Walk, new: Sequence[NewJob]) -> Moved:
    """Decides about those whose parents are over already, and carries out what follows."""
    blocked = [job.id for job in new if job.parents]
    if blocked and not _is_fresh(new):
        await walk.judge(await transaction.rows("blocked_counts", blocked))
    return await walk.finish()


def _is_fresh(new: Sequence[NewJob]) -> bool:
    """Whether all parents are among the new jobs: then none of them is over."""
    ids = {job.id for job in new}
    return all(ids.issuperset(job.parents) for job in new)


def standing(jobs: Sequence[NewJob], moved: Moved, at: datetime) -> dict[JobId, State]:
    """Where jobs with parents stand after their commit `at`."""
    states = {job.id: State.BLOCKED for job in jobs if job.parents}
    later = {job.id for job in jobs if job.delay_s or (job.run_at and job.run_at > at)}
    for due in moved.unlocked:
        states[due.id] = State.SCHEDULED if due.id in later else State.READY
    for over in moved.ended:
        states[over.id] = over.state
    return states
