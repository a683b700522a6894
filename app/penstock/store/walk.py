"""One transaction on graphs: it locks them, hears of ends, tells children, ends workflows.

In: the ends that a verb of `graphs` brought about. Out: what others must hear of after the commit.
Always holds: a graph is locked before anything in it moves, workflows in the order of ids, the
loose graph after them (decision 0018); what a step of 1,000 rows has no room for is stored in the
same transaction, so that whoever finds it goes on. If we die here, Postgres rolls all of it back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from penstock.domain import ids
from penstock.domain.effect import EndedJob, Policy
from penstock.domain.ids import BYTES, JobId
from penstock.domain.job import Due, State
from penstock.domain.workflow import (
    LOOSE,
    STOP_SPARES,
    Counts,
    Decision,
    Halt,
    OnFailure,
    RunIf,
    Workflow,
    WorkflowState,
    decide,
)
from penstock.store import rows
from penstock.store.effects import tell_ends, tell_workflows
from penstock.store.postgres import Record, Transaction

STEP = 1000  # edges told and jobs let go by one transaction
_ROUND = 10  # edges that a round of telling counts for at least: a chain takes a round a job
_FIRST = JobId(bytes(BYTES))
_SPARES = [str(one) for one in STOP_SPARES]


@dataclass(frozen=True, slots=True)
class Over:
    """A job that is over now. `graph`: None if it is part of none. `waited`: it has a shelf."""

    id: JobId
    graph: JobId | None
    queue: str
    kind: str
    priority: int
    state: State
    waited: bool = False
    attempt: int = 0
    reason: str | None = None
    told: bool = False  # the settlement has written what is to be told of its end

    def as_due(self) -> Due:
        """For taking it off its shelf."""
        return Due(self.id, self.queue, self.kind, self.priority, 0)


@dataclass(slots=True)
class Moved:
    """What a transaction did that others must hear of once it has committed."""

    unlocked: list[Due] = field(default_factory=list)
    blocked: list[Due] = field(default_factory=list)  # they wait for parents from now on
    due: list[Due] = field(default_factory=list)  # in line, never blocked before
    ended: list[Over] = field(default_factory=list)
    workflows: list[tuple[JobId, WorkflowState]] = field(default_factory=list)  # that are over
    asked: list[JobId] = field(default_factory=list)  # running, told to stop
    unfinished: bool = False  # more is stored, for the next step


@dataclass(slots=True)
class _Spread:
    """An ended job that has children to tell, those after `after`."""

    parent: JobId
    graph: JobId
    state: State
    after: JobId = _FIRST
    stored: bool = False


@dataclass(frozen=True, slots=True)
class _Edge:
    """The last of `count` edges: of which parent, by its place, and to which child."""

    count: int
    place: int
    child: JobId


class Walk:
    """The order of calls: `lock`, what the verb does, `note` of what ended by it, `finish`."""

    def __init__(self, transaction: Transaction, policy: Policy) -> None:
        self._tx = transaction
        self._policy = policy
        self.workflows: dict[JobId, Workflow] = {}
        self._changed: set[JobId] = set()
        self._is_loose_locked = False
        self._spreads: list[_Spread] = []
        self._left = STEP
        self._more_stored = False
        self.moved = Moved()

    async def lock(self, graphs: Iterable[JobId]) -> None:
        """Locks these graphs, and the workflows around them. Once in a transaction."""
        wanted = set(graphs)
        workflows = sorted(wanted - {LOOSE})
        if workflows:
            found = await self._tx.rows("lock_workflows", workflows)
            self.workflows = {JobId(row[0]): workflow(row) for row in found}
        if LOOSE in wanted:
            await self._lock_loose()

    def change(self, one: Workflow) -> None:
        """A locked workflow as it is to be written."""
        self.workflows[one.id] = one
        self._changed.add(one.id)

    def note(self, over: Sequence[Over]) -> None:
        """These have just ended: counts them, and remembers to tell their children."""
        self.moved.ended += over
        for one in over:
            if one.graph is not None:
                self._spreads.append(_Spread(one.id, one.graph, one.state))
        for (graph, state), count in Counter((one.graph, one.state) for one in over).items():
            if graph in self.workflows:
                found = self.workflows[graph]
                counted = replace(found, counts=found.counts.plus(state, count))
                self.change(_stopped(counted) if state is State.DEAD else counted)

    async def resume(self, graph: JobId) -> None:
        """Takes up what earlier transactions left to tell in a locked graph."""
        found = await self._tx.rows("spreads_of", graph, STEP)
        for parent, state, after in found:
            self._spreads.append(_Spread(JobId(parent), graph, State(state), JobId(after), True))
        self._more_stored = len(found) == STEP

    async def finish(self) -> Moved:
        """Carries out all that follows, as far as a step goes, and writes the rest down."""
        while True:
            await self._tell_children()
            await self._let_go()
            if self._spreads and self._left > 0:
                continue
            if not await self._end_workflows():
                break
        await self._store_spreads()
        await self._write_workflows()
        await self._write_effects()
        halting = any(one.halting for one in self.workflows.values())
        self.moved.unfinished = bool(self._spreads) or self._more_stored or halting
        return self.moved

    async def end_blocked(
        self, blocked: Sequence[JobId], state: State, reason: str | None, *, expired: bool = False
    ) -> list[Over]:
        """Ends blocked jobs; those that it ended. `expired`: only what has."""
        if not blocked:
            return []
        found = await self._tx.rows("end_blocked", blocked, state, reason, expired)
        return self._noted(found, state, reason)

    async def end_due(
        self, due: Sequence[JobId], reason: str, *, expired: bool = False
    ) -> list[Over]:
        """Cancels jobs that are in line; those that it ended."""
        if not due:
            return []
        found = await self._tx.rows("end_due", due, reason, expired)
        return self._noted(found, State.CANCELLED, reason)

    async def judge(self, found: Sequence[Record]) -> None:
        """Does with blocked jobs, as count_parents tells of them, what their parents decide."""
        run: list[JobId] = []
        skip: list[JobId] = []
        for id_, graph, run_if, parents, *ended in found:
            if self._is_let_go(JobId(graph), RunIf(run_if)):
                continue
            match decide(RunIf(run_if), Counts(*ended), parents):
                case Decision.RUN:
                    run.append(JobId(id_))
                case Decision.SKIP:
                    skip.append(JobId(id_))
                case Decision.WAIT:
                    pass
        if run:
            unlocked = await self._tx.rows("unlock_blocked", run)
            self.moved.unlocked += [rows.due(row) for row in unlocked]
        await self.end_blocked(skip, State.SKIPPED, None)

    async def _lock_loose(self) -> None:
        if not self._is_loose_locked:
            await self._tx.rows("lock_loose")
            self._is_loose_locked = True

    def _is_let_go(self, graph: JobId, run_if: RunIf) -> bool:
        """Whether a halt cancels what is blocked under this condition: it must not begin before."""
        halt = self.workflows[graph].halt if graph in self.workflows else None
        return halt is Halt.CANCEL or (halt is Halt.STOP and run_if not in STOP_SPARES)

    def _noted(self, found: Sequence[Record], state: State, reason: str | None) -> list[Over]:
        over = [
            Over(JobId(id_), _id(graph), queue, kind, priority, state, True, attempt, reason)
            for id_, graph, queue, kind, priority, attempt in found
        ]
        self.note(over)
        return over

    async def _tell_children(self) -> None:
        while self._spreads and self._left > 0:
            told, limit = self._spreads, self._left
            last, stood = await self._tell(told, limit)
            done = len(told)
            if last.count == limit:  # the last of these parents may have more children
                done = last.place
                told[done].after = last.child
            self._left -= max(last.count, _ROUND)
            await self._forget_spreads(told[:done])
            self._spreads = told[done:]
            await self.judge(stood)

    async def _tell(self, told: Sequence[_Spread], limit: int) -> tuple[_Edge, list[Record]]:
        """The last edge of those told, and how the children at them stand that are blocked."""
        columns = (
            [one.parent for one in told],
            [one.after for one in told],
            [one.state for one in told],
        )
        while True:
            found = await self._tx.rows("tell_children", *columns, limit, self._is_loose_locked)
            head = next(row for row in found if row[2] is None)
            if head[5]:
                last = _Edge(count=head[3], place=head[4], child=head[0])
                return last, [row for row in found if row[2] is not None]
            await self._lock_loose()

    async def _forget_spreads(self, done: Sequence[_Spread]) -> None:
        if stored := [one.parent for one in done if one.stored]:
            await self._tx.rows("delete_spreads", stored)

    async def _let_go(self) -> None:
        """Cancels the next of what halted workflows have waiting."""
        for id_ in [one.id for one in self.workflows.values() if one.halting]:
            if self._left > 0:
                await self._let_go_of(self.workflows[id_])

    async def _let_go_of(self, halted: Workflow) -> None:
        limit, is_stop = self._left, halted.halt is Halt.STOP
        found = await self._tx.rows("halt_next", halted.id, is_stop, limit, _SPARES)
        self._left -= len(found)
        reason = "workflow-stopped" if is_stop else "requested"
        blocked = [JobId(id_) for id_, is_blocked in found if is_blocked]
        await self.end_blocked(blocked, State.CANCELLED, reason)
        await self.end_due([JobId(id_) for id_, is_blocked in found if not is_blocked], reason)
        if len(found) == limit:
            return
        self.change(replace(self.workflows[halted.id], halting=False))
        if not is_stop:  # after what was in line: none of it can begin unseen any more
            asked = await self._tx.rows("ask_to_stop", halted.id)
            self.moved.asked += [JobId(row[0]) for row in asked]

    async def _end_workflows(self) -> bool:
        """Ends those of which all jobs are over; whether that ended jobs that hold them."""
        held = False
        for one in sorted(self.workflows.values(), key=lambda w: -len(w.ancestors)):
            if one.id not in self._changed or one.state is not WorkflowState.RUNNING:
                continue
            if not one.is_over:
                continue
            ended = replace(one, state=one.end_state())
            self.change(ended)
            self.moved.workflows.append((ended.id, ended.state))
            if ended.holder is not None:
                held = await self._settle_holder(ended, ended.holder) or held
        return held

    async def _settle_holder(self, ended: Workflow, holder: JobId) -> bool:
        if not ended.ancestors:
            await self._lock_loose()  # it may have children there
        state, outcome, result, error, reason = _holder_columns(ended)
        found = await self._tx.rows(
            "settle_holder", holder, ended.id, outcome, state, result, error, reason
        )
        over = [
            Over(JobId(id_), _id(graph), queue, kind, priority, State(it), False, attempt, reason)
            for id_, graph, queue, kind, priority, it, attempt in found
        ]
        self.note(over)
        return bool(over)

    async def _store_spreads(self) -> None:
        left = self._spreads
        if left:
            await self._tx.rows(
                "store_spreads",
                [one.parent for one in left],
                [one.graph for one in left],
                [one.state for one in left],
                [one.after for one in left],
            )

    async def _write_workflows(self) -> None:
        changed = [self.workflows[id_] for id_ in sorted(self._changed)]
        if changed:
            await self._tx.rows("write_workflows", *_workflow_columns(changed))

    async def _write_effects(self) -> None:
        """What is to be told of ends that no settlement told of, and of workflows that are over."""
        over = [
            EndedJob(one.id, one.attempt, one.queue, one.kind, one.state, one.reason)
            for one in self.moved.ended
            if not one.told
        ]
        await tell_ends(self._tx, self._policy, over)
        if self.moved.workflows:
            await tell_workflows(self._tx, self.moved.workflows)


def _id(value: bytes | None) -> JobId | None:
    return JobId(value) if value else None


def workflow(row: Record) -> Workflow:
    """A row of lock_workflows."""
    id_, on_failure, holder, ancestors, state, total, *counts, halt, halting = row
    return Workflow(
        id=JobId(id_),
        on_failure=OnFailure(on_failure),
        holder=holder,
        ancestors=ancestors,
        state=WorkflowState(state),
        total=total,
        counts=Counts(*counts),
        halt=Halt(halt) if halt else None,
        halting=halting,
    )


def count_columns(counts: Mapping[JobId, Counts]) -> list[list[object]]:
    """The columns of count_parents: by child, how many more of its parents ended as what."""
    return [list(counts), *rows.counts(counts.values())]


def _stopped(one: Workflow) -> Workflow:
    """One in which a job has died: its rule may be to stop."""
    if one.on_failure is OnFailure.STOP and one.halt is None:
        return replace(one, halt=Halt.STOP, halting=True)
    return one


def _workflow_columns(changed: Sequence[Workflow]) -> list[list[object]]:
    return [
        [one.id for one in changed],
        [one.state for one in changed],
        [one.total for one in changed],
        *rows.counts([one.counts for one in changed]),
        [one.halt for one in changed],
        [one.halting for one in changed],
    ]


def _holder_columns(ended: Workflow) -> tuple[State, str, str | None, str | None, str | None]:
    """How the job ends whose attempt was this workflow: state, outcome, result, error, reason."""
    counts = ended.counts
    told = {
        "workflow_id": ids.text(ended.id),
        "state": ended.state,
        "counts": {
            state: getattr(counts, state) for state in ("succeeded", "dead", "cancelled", "skipped")
        },
    }
    if ended.state is WorkflowState.SUCCEEDED:
        return State.SUCCEEDED, "succeeded", orjson.dumps(told).decode(), None, None
    if ended.state is WorkflowState.CANCELLED:
        return State.CANCELLED, "cancelled", None, None, "requested"
    message = f"the workflow {told['workflow_id']} failed: {counts.dead} of its jobs died"
    error = {"type": "workflow-failed", "message": message, "details": told}
    return State.DEAD, "failed", None, orjson.dumps(error).decode(), "failed-for-good"
