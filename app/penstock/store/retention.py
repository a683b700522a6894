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
from datetime import datetime

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.store.postgres import Postgres

_EDGES_A_JOB = 5  # deleted by one statement, on the average
LOOKS_MAX = 2000  # jobs of a lane that a statement looks at
_LANES_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many jobs a step deleted, and when the last of them had ended."""

    count: int
    last: datetime | None


@dataclass(frozen=True, slots=True)
class PrunedJobs:
    """Of workflows. `rows`: the most of one sort that was deleted; the limit: there may be more."""

    rows: int
    counts: Mapping[State, int]


@dataclass(frozen=True, slots=True)
class PrunedLane:
    """`last`: where to go on; `is_end`: there is nothing more to look at now."""

    count: int
    last: JobId
    is_end: bool


Lane = tuple[str, str]  # queue and kind


class Retention:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def prune_ended(
        self, state: State, older_s: float, since: datetime, rows_max: int
    ) -> Pruned:
        """Deletes the oldest jobs of a state that ended more than `older_s` seconds ago and are
        part of no graph, whole, but for those that ended before `since`."""
        found = await self._pg.rows(
            "prune_ended", state, older_s, since, rows_max, point="after_prune"
        )
        return Pruned(found[0][0], found[0][1])

    async def prune_loose(
        self, state: State, older_s: float, since: datetime, rows_max: int
    ) -> Pruned:
        """The same of jobs that have parents or children by `depends_on`, with their edges, but for
        those of which a child is not over."""
        async with self._pg.transaction() as transaction:
            await transaction.rows("lock_loose")
            found = await transaction.rows(
                "prune_loose", state, older_s, since, rows_max, _EDGES_A_JOB * rows_max
            )
        return Pruned(found[0][0], found[0][1])

    async def prune_lane(
        self, state: State, lane: Lane, older_s: float, after: JobId, rows_max: int
    ) -> PrunedLane:
        """As `prune_ended` of one lane, for jobs whose ids come after that."""
        found = await self._pg.read("lane_by_age", state, *lane, older_s, after, LOOKS_MAX)
        old: list[JobId] = []
        for job_id, is_old in found:
            if is_old and len(old) == rows_max:
                break
            after = job_id
            if is_old:
                old.append(job_id)
        is_end = len(found) < LOOKS_MAX and (not found or after == found[-1][0])
        if not old:
            return PrunedLane(0, after, is_end)
        count = await self._pg.value("prune_these", state, older_s, old)
        return PrunedLane(int(count), after, is_end)

    async def lanes(self) -> list[Lane]:
        """Queue and kind of all ended jobs."""
        found: list[Lane] = []
        last = ("", "")
        while page := await self._pg.read("ended_lanes", *last, _LANES_A_PAGE):
            found += [(queue, kind) for queue, kind in page]
            last = found[-1]
        return found

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

    async def prune_entries(self, older_s: float, rows_max: int) -> int:
        """Deletes the oldest entries of the audit log, of those older than seven days; how many it
        were."""
        return int(await self._pg.value("prune_entries", older_s, rows_max))
