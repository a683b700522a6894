"""The transitions of jobs in Postgres: start, settle, cancel, expire, retry. One statement each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock.domain.attempt import Ending
from penstock.domain.audit_log import Entry
from penstock.domain.effect import TELLS_NOTHING, EndedJob, NewEffect, Policy
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import Due, Started, State
from penstock.domain.verdict import Verdict
from penstock.store import rows
from penstock.store.audit_log import note
from penstock.store.effects import tell_ends
from penstock.store.postgres import Postgres, Record

ROWS_MAX = 2000  # rows a statement; larger submissions go in several within one transaction
ROW_BYTES = 8192  # of payload or result count as one row more: 16 MiB a statement


Attempt = tuple[JobId, int]  # one numbered try of a job
LogRow = tuple[JobId, int, int, float, str, str]  # job, attempt, seq, wall seconds, level, message
ProgressRow = tuple[JobId, int, float, str | None, float]  # job, attempt, percent, message, wall s


@dataclass(frozen=True, slots=True)
class Settlement:
    """One ended attempt with the verdict on it. `error` is JSON text."""

    job: Started
    ending: Ending
    verdict: Verdict
    error: str | None
    cancel_known: bool
    effects: Sequence[NewEffect] = ()
    fingerprint: str | None = None  # of a death
    ran_s: float | None = None  # None: nobody knows


@dataclass(frozen=True, slots=True)
class Settled:
    """What settle did with a row: consumed it, `ready_at` set if the job is due again."""

    ready_at: datetime | None


@dataclass(frozen=True, slots=True)
class Left:
    """A due row that start didn't move: early, in a paused queue, expired, or locked."""

    due: Due
    paused: bool
    expired: bool


@dataclass(slots=True)
class Settlements:
    """What became of a batch: what was settled, which a cancel held back, and which turned out to
    be part of a graph, and of which one. What is in none of them was stale: settled before, or
    taken over by another attempt."""

    settled: dict[Attempt, Settled] = field(default_factory=dict)
    held: set[Attempt] = field(default_factory=set)
    linked: dict[Attempt, JobId] = field(default_factory=dict)


class Jobs:
    """`policy`: what is to be told of ends that aren't settlements."""

    def __init__(self, postgres: Postgres, policy: Policy = TELLS_NOTHING) -> None:
        self._pg = postgres
        self.policy = policy

    async def start(self, ids: Sequence[JobId], worker: WorkerId) -> list[Started]:
        """Moves what is due to running under this worker's name, in the order of `ids`."""
        found = await self._pg.rows("start_jobs", ids, worker, point="after_start")
        by_id = {row[0]: rows.started(row) for row in found}
        return [by_id[id_] for id_ in ids if id_ in by_id]

    async def left(self, ids: Sequence[JobId]) -> list[Left]:
        """Which of these are still due, and whether a pause holds them. The rest are gone."""
        found = await self._pg.rows("left_due", ids)
        return [Left(rows.due(row), row[5], row[6]) for row in found]

    async def settle(self, batch: Sequence[Settlement]) -> Settlements:
        """Consumes the running rows of jobs that are part of no graph."""
        columns = settlement(batch, is_locked=False)
        found = await self._pg.rows("settle_attempts", *columns, point="after_settle")
        return settlements(found)

    async def settled_before(self, batch: Sequence[Settlement]) -> dict[Attempt, Settled]:
        """Of a batch whose answer was lost: what its workers have settled already."""
        ids, workers = [s.job.id for s in batch], list({s.job.worker for s in batch})
        found = await self._pg.rows("settled_before", ids, workers)
        ours = {(s.job.id, s.job.attempt) for s in batch}  # not the attempts before
        return {(JobId(r[0]), r[1]): Settled(r[2]) for r in found if (r[0], r[1]) in ours}

    async def still_runs(self, job: Started) -> bool:
        """Whether this attempt still runs under its worker's name."""
        return bool(await self._pg.rows("running_now", job.id, job.attempt, job.worker))

    async def running_of(
        self,
        workers: Sequence[WorkerId],
        limit: int,
        *,
        with_payload: bool,
        but: Collection[JobId] = (),
    ) -> list[tuple[Started, bool]]:
        """What stands under these names, and whether its cancel was requested. Payloads only for
        those who run it: hundreds of them may be hundreds of MiB. `but` is left out."""
        found = await self._pg.rows("running_of", workers, limit, with_payload, list(but))
        return [(rows.started(row), row[23]) for row in found]

    async def cancel_due(self, id_: JobId, entry: Entry | None = None) -> Due | None:
        async with self._pg.transaction(after="after_cancel") as transaction:
            found = await transaction.rows("cancel_due", id_)
            over = [_cancelled(id_, "requested", *row[:4]) for row in found]
            await tell_ends(transaction, self.policy, over)
            if found and entry is not None:
                was = State.SCHEDULED if found[0][4] else State.READY
                await note(transaction, entry.changed("state", was, State.CANCELLED))
        return Due(id_, found[0][0], found[0][1], found[0][2], 0) if found else None

    async def expire(self, limit: int) -> list[Due]:
        """Ends due jobs whose time to live is over, at most so many; those that it ended."""
        async with self._pg.transaction(after="after_expire") as transaction:
            found = await transaction.rows("expire_due", limit)
            over = [_cancelled(JobId(row[0]), "expired", *row[1:]) for row in found]
            await tell_ends(transaction, self.policy, over)
        return [Due(JobId(row[0]), row[1], row[2], row[3], 0) for row in found]

    async def cancel_running(self, id_: JobId, entry: Entry | None = None) -> WorkerId | None:
        async with self._pg.transaction(after="after_cancel_request") as transaction:
            found = await transaction.rows("cancel_running", id_)
            if found and entry is not None:  # it is only asked: what becomes of it is its own doing
                running = {"state": State.RUNNING}
                await note(transaction, entry.with_(before=running, after=running))
        return WorkerId(found[0][0]) if found else None

    async def standing_of(self, id_: JobId) -> tuple[str, JobId | None] | None:
        """The job's state, and the other live job that holds its unique key."""
        found = await self._pg.rows("state_of", id_)
        return (found[0][0], found[0][1]) if found else None

    async def add_logs(self, lines: Sequence[LogRow]) -> None:
        """Keeps log lines; those that are there already are passed over, and those of jobs that
        ended long ago."""
        await self._pg.rows("add_logs", *(list(column) for column in zip(*lines, strict=True)))

    async def add_progress(self, told: Sequence[ProgressRow]) -> None:
        """Keeps the latest of each job; what comes after a later report or of an attempt before
        the latest is passed over, and that of jobs that ended long ago."""
        await self._pg.rows("add_progress", *(list(column) for column in zip(*told, strict=True)))


def settlements(found: Sequence[Record]) -> Settlements:
    """Reads what settle_attempts answers."""
    made = Settlements()
    for id_, attempt, ready_at, became, graph_id in found:
        key = (JobId(id_), attempt)
        if became == "settled":
            made.settled[key] = Settled(ready_at)
        elif became == "held":
            made.held.add(key)
        else:
            made.linked[key] = JobId(graph_id)
    return made


def _cancelled(
    id_: JobId, reason: str, queue: str, kind: str, _priority: int, attempt: int
) -> EndedJob:
    return EndedJob(id_, attempt, queue, kind, State.CANCELLED, reason)


def settlement(batch: Sequence[Settlement], *, is_locked: bool) -> list[object]:
    """The arguments of settle_attempts."""
    fingerprints = rows.spared([[s.fingerprint for s in batch]])
    effects = [effect for s in batch for effect in s.effects]
    return [*_columns(batch), is_locked, *fingerprints, *_effect_columns(effects)]


def _effect_columns(effects: Sequence[NewEffect]) -> list[list[object]]:
    return [
        [one.job for one in effects],
        [one.attempt for one in effects],
        [one.channel for one in effects],
        [one.endpoint for one in effects],
        [one.dedupe for one in effects],
        [one.event for one in effects],
        [one.state for one in effects],
        [one.reason for one in effects],
        [one.rule for one in effects],
    ]


def _columns(batch: Sequence[Settlement]) -> list[list[object]]:
    columns: list[list[object]] = [
        [s.job.id for s in batch],
        [s.job.attempt for s in batch],
        [s.job.worker for s in batch],
        [s.ending.outcome for s in batch],
        [s.verdict.state for s in batch],
        [s.verdict.delay_s for s in batch],
        [s.verdict.failures for s in batch],
        [s.verdict.losses for s in batch],
        [s.verdict.crashes for s in batch],
        [s.ending.result for s in batch],
        [s.error for s in batch],
        [s.verdict.reason for s in batch],
        [s.cancel_known for s in batch],
    ]
    return rows.spared(columns)
