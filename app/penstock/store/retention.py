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

from penstock.domain.job import State
from penstock.store.postgres import Postgres

_EDGES_A_JOB = 5  # deleted by one statement, on the average


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
