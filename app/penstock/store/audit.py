"""The self-audit's looks at Postgres, on the readers' pool: no settlement waits for one.

Each is one statement, so one snapshot, and bounded. Only unique keys are mended: one that no live
job holds would be refused for ever, and nothing else would notice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.workflow import Counts, Decision, RunIf, decide
from penstock.store.postgres import Postgres

_WORKERS = 1000
_LINES = 200
_JOBS = 100  # of one dead name
_EDGES_A_ROW = 5  # read for a page of blocked jobs, for each of its rows
_JOBS_A_ROW = 5  # the same of workflows that run

Found = dict[str, list[str]]  # rule -> who breaks it


@dataclass(frozen=True, slots=True)
class Page:
    """What a page showed, and the cursor of the next one; None: that was the last."""

    found: Found
    next: bytes | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The oldest due job of a line that is served, and whether it could have begun: one after it
    runs, or a worker that serves it runs nothing."""

    job: str
    passed_over: bool


class Audit:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def places(self, after: bytes, rows_max: int) -> Page:
        """Jobs that stand in no place or in two, and rows of no job."""
        rows = await self._pg.read("audit_places", after, rows_max)
        found: Found = {"no_place": [], "two_places": [], "no_job": []}
        for id_, rule in rows:
            if rule is not None:
                found[rule].append(ids.text(JobId(id_)))
        return Page(found, next((row[0] for row in rows if row[1] is None), None))

    async def keys(self, after: bytes, rows_max: int) -> tuple[Page, list[bytes]]:
        """Unique keys that no live job holds, as their jobs and as themselves."""
        rows = await self._pg.read("audit_keys", after, rows_max)
        leaked = [(key, id_) for key, id_ in rows if id_ is not None]
        found = {"leaked_key": [ids.text(JobId(id_)) for _, id_ in leaked]}
        cursor = next((row[0] for row in rows if row[1] is None), None)
        return Page(found, cursor), [key for key, _ in leaked]

    async def blocked(self, after: bytes, rows_max: int) -> Page:
        """Blocked jobs that count other parents than are over, and those whose condition says that
        they should wait no more. What an unfinished spread has still to tell isn't counted yet."""
        rows = await self._pg.read("audit_blocked", after, rows_max, _EDGES_A_ROW * rows_max)
        found: Found = {"blocked_counts": [], "stuck_blocked": []}
        for id_, run_if, parents, *numbers, is_let_go in rows:
            kept, edges, real = numbers[:4], numbers[4], numbers[5:]
            if (parents, kept) != (edges, real):
                found["blocked_counts"].append(ids.text(JobId(id_)))
            decision = decide(RunIf(run_if), Counts(*real), edges)
            if decision is not Decision.WAIT and not is_let_go:
                found["stuck_blocked"].append(ids.text(JobId(id_)))
        return Page(found, rows[-1][0] if rows else None)

    async def workflows(self, after: bytes, rows_max: int) -> Page:
        """Workflows that count other jobs than they have, and those that run though all of their
        jobs are over."""
        rows = await self._pg.read("audit_workflows", after, rows_max, _JOBS_A_ROW * rows_max)
        found: Found = {"workflow_counts": [], "stuck_workflow": []}
        for id_, rule in rows:
            if rule is not None:
                found[rule].append(ids.text(JobId(id_)))
        return Page(found, next((row[0] for row in rows if row[1] is None), None))

    async def free(self, keys: Sequence[bytes]) -> int:
        """Deletes those of these keys that still have no live job; how many. If we die before the
        commit, the next pass finds them again."""
        async with self._pg.transaction() as transaction:
            held = [row[0] for row in await transaction.rows("lock_keys_found", keys)]
            return len(await transaction.rows("free_keys", held)) if held else 0

    async def counts(self, after: str, queues: int, rows_max: int) -> tuple[list[str], str]:
        """Counts that aren't those of the places, as "queue state: kept, found"; the last queue of
        this page, "" at the end. Queues of more than `rows_max` ended jobs are passed over."""
        rows = await self._pg.read("audit_counts", after, queues, rows_max)
        wrong = [f"{row[0]} {row[1]}: {row[2]}, {row[3]}" for row in rows if row[1] is not None]
        return wrong, next((row[0] for row in rows if row[1] is None), "")

    async def orphans(self) -> list[str]:
        """Attempts under names of workers that are dead or unknown."""
        return [ids.text(JobId(row[1])) for row in await self._pg.read("audit_orphans", _JOBS)]

    async def waiting(self, older_s: float) -> list[Waiting]:
        """The heads of lines that have been due for so long, where somebody serves the line."""
        workers = await self._pg.read("audit_workers", _WORKERS)
        found = []
        for queue, kind, id_, overtaken in await self._pg.read("audit_heads", _LINES, older_s):
            idle = [
                is_idle
                for queues, kinds, is_idle in workers
                if kind in kinds and any(fnmatchcase(queue, glob) for glob in queues)
            ]
            if idle:
                found.append(Waiting(ids.text(JobId(id_)), overtaken or any(idle)))
        return found
