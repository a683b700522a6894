"""What is kept for a time: ended jobs with all that belongs to them, answers, letters, deliveries.

What is still to leave the house keeps what it tells of.
Jobs without parents and children go one by one; loose ones when no child waits for them or reads
their results; those of a workflow only with it, however old they are. A workflow's row goes first
(`prune_workflows`), which nobody can undo: who retries it holds the row, or finds no such workflow.
Its id is kept until all of its jobs, edges and nested workflows have gone, in bounded steps. If we
die between them, the next step of whoever prunes goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.domain.job import State
from penstock.domain.keeping import EVERYBODY, Whose
from penstock.store.postgres import Postgres, Record

_EDGES_A_JOB = 5  # deleted by one statement, on the average
_LOOKS_MAX = 20_000  # jobs that one statement looks at, where it is for some of them


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many jobs a step deleted, and up to which end it has looked; `more`: there are others
    that it would look at."""

    count: int
    last: datetime | None
    more: bool = False


@dataclass(frozen=True, slots=True)
class PrunedJobs:
    """Of workflows. `rows`: the most of one sort that was deleted; the limit: there may be more."""

    rows: int
    counts: Mapping[State, int]


@dataclass(frozen=True, slots=True)
class _Reach:
    """`last`: when the last of `count` ended that are looked at, from `since` on."""

    last: datetime | None
    since: datetime
    count: int


def _only(whose: Whose, reach: _Reach | None) -> tuple[object, ...]:
    if reach is None:
        return (None, None, None, None)
    return (reach.last or reach.since, whose.kinds_apart, whose.kinds, whose.queues)


def _pruned(row: Record, rows_max: int, reach: _Reach | None) -> Pruned:
    count, last = row
    if reach is None or count == rows_max:
        return Pruned(count, last, count == rows_max)
    more = reach.count == _LOOKS_MAX
    if more and reach.last == reach.since:  # so many of one moment are others'
        return Pruned(count, reach.since + timedelta(microseconds=1), more)
    return Pruned(count, reach.last, more)


class Retention:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def prune_ended(
        self,
        state: State,
        older_s: float,
        since: datetime,
        rows_max: int,
        whose: Whose = EVERYBODY,
    ) -> Pruned:
        """Deletes the oldest jobs of a state that ended more than `older_s` seconds ago and are
        part of no graph, whole, but for those that ended before `since`, or are not `whose`."""
        old = (state, older_s, since)
        reach = await self._reach("reach_of_ended", *old, whose)
        found = await self._pg.rows(
            "prune_ended", *old, rows_max, *_only(whose, reach), point="after_prune"
        )
        return _pruned(found[0], rows_max, reach)

    async def prune_loose(
        self,
        state: State,
        older_s: float,
        since: datetime,
        rows_max: int,
        whose: Whose = EVERYBODY,
    ) -> Pruned:
        """The same of jobs that have parents or children by `depends_on`, with their edges, but for
        those of which a child is not over."""
        old = (state, older_s, since)
        reach = await self._reach("reach_of_loose", *old, whose)
        edges_max = _EDGES_A_JOB * rows_max
        async with self._pg.transaction() as transaction:
            await transaction.rows("lock_loose")
            found = await transaction.rows(
                "prune_loose", *old, rows_max, edges_max, *_only(whose, reach)
            )
        return _pruned(found[0], rows_max, reach)

    async def _reach(
        self, query: str, state: State, older_s: float, since: datetime, whose: Whose
    ) -> _Reach | None:
        """How far a step looks that passes over what is for others; None: it passes over none."""
        if whose == EVERYBODY:
            return None
        last, count = (await self._pg.rows(query, state, older_s, since, _LOOKS_MAX))[0]
        return _Reach(last, since, count)

    async def prune_workflows(self, older_s: float, rows_max: int) -> int:
        """Takes out the oldest workflows that ended more than `older_s` seconds ago; how many.
        From here on there are no such workflows; their jobs go by `prune_workflow_jobs`."""
        async with self._pg.transaction(after="after_prune_workflows") as transaction:
            old = {row[0] for row in await transaction.rows("old_workflows", older_s, rows_max)}
            # Again: a loose child may have been stored after that look, but before the lock.
            again = await transaction.rows("old_workflows", older_s, rows_max)
            wanted = [row[0] for row in again if row[0] in old]
            return int((await transaction.rows("prune_workflows", wanted))[0][0])

    async def prune_workflow_jobs(self, rows_max: int) -> PrunedJobs:
        """Deletes the next of what is left of workflows that were taken out."""
        (rows, _), *counts = await self._pg.rows("prune_workflow_jobs", rows_max)
        return PrunedJobs(rows, {State(state): count for count, state in counts})

    async def prune_idempotency_keys(self, older_s: float, rows_max: int) -> int:
        """Deletes the oldest stored answers; how many it were."""
        return int(await self._pg.value("prune_idempotency_keys", older_s, rows_max))

    async def prune_letters(self, older_s: float, rows_max: int) -> int:
        """Deletes the dead letters that were resolved first; how many it were."""
        return int(await self._pg.value("prune_letters", older_s, rows_max))

    async def prune_deliveries(self, older_s: float, rows_max: int) -> int:
        """Deletes what was delivered or given up first; how many it were."""
        return int(await self._pg.value("prune_deliveries", older_s, rows_max))
