"""What readers ask Postgres for of workflows: one, a page of them, their jobs.

Always holds: a page looks at 20,000 workflows at most and counts about 50,000 jobs at most; what
it hasn't looked at is left to the next one. A workflow has 10,000 jobs at most, read in parts.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.view import DeadJobView, MemberView, WorkflowView
from penstock.domain.workflow import WorkflowState
from penstock.store.health import Health
from penstock.store.lists import HIGHEST, LOOKS_MAX
from penstock.store.postgres import Postgres, Record

COUNTED_MAX = 50_000  # live jobs that are counted for a page
DEAD_MAX = 10  # dead jobs that a workflow names
_MESSAGE_MAX = 500  # characters of their errors' messages
_PART = 1000  # jobs of a workflow that are read at once


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows: below id `below`; all of their queues among `queues`; None is any."""

    queues: Sequence[str] | None = None
    states: frozenset[WorkflowState] | None = None
    names: Sequence[str] | None = None
    below: JobId = HIGHEST


@dataclass(frozen=True, slots=True)
class WorkflowPage:
    """`next`: the following page has what is below this id; None: there is no more."""

    items: list[WorkflowView]
    next: JobId | None


@dataclass(frozen=True, slots=True)
class Member:
    """A job of a workflow that others may name."""

    id: JobId
    is_skippable: bool


class WorkflowReads:
    """Raises StoreUnavailable within a second when Postgres doesn't answer."""

    def __init__(self, postgres: Postgres, health: Health) -> None:
        self._pg = postgres
        self._health = health

    async def workflow(self, id_: JobId) -> WorkflowView | None:
        with self._health.watch():
            found = await self._pg.read("workflows", [id_])
        return _view(found[0]) if found else None

    async def workflows(self, ids: Sequence[JobId]) -> list[WorkflowView]:
        """Those of these that there are."""
        with self._health.watch():
            return [_view(row) for row in await self._pg.read("workflows", ids)]

    async def page(self, of: WorkflowFilter, limit: int) -> WorkflowPage:
        """A page of `limit` workflows at most, newest first, or of fewer and `next` where it had
        to stop looking."""
        query = "workflow_page" if of.states is None else "workflow_page_of_states"
        states = None if of.states is None else list(of.states)
        with self._health.watch():
            async with self._pg.snapshot() as read:
                found = await read(
                    query, *(of.below, LOOKS_MAX, limit + 1, states, of.names, of.queues)
                )
                ids, following = _cut(found, limit)
                items = [_view(row) for row in await read("workflows", ids)]
        return WorkflowPage(items, following)

    async def jobs(self, id_: JobId) -> list[MemberView]:
        """All jobs of a workflow, in the order in which they were submitted."""
        found: list[MemberView] = []
        after = ""
        with self._health.watch():
            async with self._pg.snapshot() as read:
                while rows := await read("workflow_jobs", id_, after, _PART):
                    found += map(_member, rows)
                    after = rows[-1][1]
                    if len(rows) < _PART:
                        break
        return sorted(found, key=lambda view: view.id)

    async def dead_jobs(self, id_: JobId) -> list[DeadJobView]:
        """The jobs of a workflow that died first, of those that are dead now."""
        with self._health.watch():
            found = await self._pg.read("dead_jobs", id_, DEAD_MAX, _MESSAGE_MAX)
        return [_dead_job(row) for row in found]

    async def dead_jobs_then(
        self, ends: Sequence[tuple[JobId, datetime]]
    ) -> dict[tuple[JobId, datetime], list[DeadJobView]]:
        """The same of those that were dead when these workflows ended, by their dead letters:
        they may have been retried since."""
        ids, ats = [id_ for id_, _ in ends], [at for _, at in ends]
        found: dict[tuple[JobId, datetime], list[DeadJobView]] = defaultdict(list)
        with self._health.watch():
            read = await self._pg.read("dead_jobs_then", ids, ats, DEAD_MAX, _MESSAGE_MAX)
        for row in read:
            found[JobId(row["workflow_id"]), row["at"]].append(_dead_job(row))
        return found

    async def members(self, id_: JobId, names: Sequence[str]) -> dict[str, Member]:
        """Those of these names that the workflow has."""
        with self._health.watch():
            found = await self._pg.read("workflow_members", id_, names)
        return {row[0]: Member(JobId(row[1]), row[2]) for row in found}


def _cut(found: Sequence[Record], limit: int) -> tuple[list[JobId], JobId | None]:
    """The ids of a page, and where the next one goes on."""
    reached = [JobId(row[0]) for row in found if row[1] is None]
    following = reached[0] if reached else None
    ids: list[JobId] = []
    counted = 0
    for id_, live in sorted(((JobId(r[0]), r[1]) for r in found if r[1] is not None), reverse=True):
        if following is not None and id_ < following:
            break
        counted += live
        if len(ids) == limit or (ids and counted > COUNTED_MAX):
            return ids, ids[-1]
        ids.append(id_)
    return ids, following


def _view(row: Record) -> WorkflowView:
    ended = {state: row[state.value] for state in _ENDED}
    live = row["total"] - sum(ended.values())
    waiting = live - row["ready"] - row["scheduled"] - row["running"]
    return WorkflowView(
        id=JobId(row["workflow_id"]),
        name=row["name"],
        state=WorkflowState(row["state"]),
        on_failure=row["on_failure"],
        queues=row["queues"],
        counts={
            State.BLOCKED: max(waiting, 0),
            State.SCHEDULED: row["scheduled"],
            State.READY: row["ready"],
            State.RUNNING: row["running"],
            **ended,
        },
        halt=row["halt"],
        held_by=row["holder_id"],
        created_by=row["created_by"],
        traceparent=row["traceparent"],
        finished_at=row["finished_at"],
        notify=row["notify"],
    )


_ENDED = (State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED)
_STATES = {str(one): one for one in State}  # a fifth of what calling the enum costs


def _dead_job(row: Record) -> DeadJobView:
    return DeadJobView(
        JobId(row["job_id"]), row["name"], row["kind"], row["error_type"], row["message"]
    )


def _member(row: Record) -> MemberView:
    return MemberView(
        id=JobId(row[0]),
        name=row[1],
        kind=row[2],
        queue=row[3],
        state=_STATES[row[4]],
        depends_on=row[5] or (),
        run_if=row[6],
        attempt=row[7],
        started_at=row[8],
        finished_at=row[9],
    )
