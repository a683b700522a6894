"""Submissions into Postgres: jobs with their places, their unique keys, the stored answers.

In: what was submitted. Out: the time of the commit, or what the keys made of each submission.
Always holds: nobody waits for a twin of its key (pitfalls.md, A11), and a key is taken in the
transaction that makes its job. Only a submission with more keys than it may lock waits: for all
others that take keys, who look again when it is over. If we die before the commit nothing is
stored; after it, the same submission sent again finds its own jobs and passes them over.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from penstock import chaos
from penstock.clock import ServerClock
from penstock.domain.audit_log import Entry
from penstock.domain.effect import TELLS_NOTHING, Policy
from penstock.domain.errors import Contended
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob
from penstock.domain.submission import (
    Accepted,
    Answer,
    Found,
    Resolution,
    Store,
    Submission,
    UniqueKey,
    resolve,
)
from penstock.store import rows
from penstock.store.audit_log import note
from penstock.store.graph_submissions import store_graph
from penstock.store.jobs import ROWS_MAX
from penstock.store.postgres import Postgres, Record, Transaction
from penstock.store.walk import Moved, Walk

K = TypeVar("K")

LOCKS_MAX = 500  # keys of a batch: each takes a slot of Postgres' one table of locks


class Submissions:
    """`clock` is kept from falling behind what Postgres' answers prove. Answers count for
    `answers_kept_s` seconds."""

    def __init__(
        self,
        postgres: Postgres,
        clock: ServerClock,
        answers_kept_s: float,
        policy: Policy = TELLS_NOTHING,
    ) -> None:
        self._pg = postgres
        self.policy = policy
        self._clock = clock
        self.answers_kept_s = answers_kept_s

    async def store(self, jobs: Sequence[NewJob], entries: Sequence[Entry] = ()) -> datetime:
        """Stores jobs without keys, all or nothing; the time of it by Postgres. `entries`: what the
        audit log tells of them."""
        if len(jobs) <= ROWS_MAX:
            await chaos.point("before_commit")
            columns = rows.submission(jobs, entries)
            found = await self._pg.rows("submit_jobs", *columns, point="after_commit")
            at: datetime = found[0][0]
        else:
            async with self._pg.transaction(
                before="before_commit_large", after="after_commit_large"
            ) as transaction:
                at = await _insert(transaction, jobs, entries)
        self._clock.at_least(at.timestamp())
        return at

    async def store_keyed(
        self, batch: Sequence[Submission], *, again: bool = False
    ) -> tuple[list[Resolution], datetime]:
        """Stores what its keys let in, in one transaction; what became of each, and when.

        `again`: it was sent before, and no answer came. Contended where a unique key was taken
        while we looked, as by a retry: send it again.
        """
        async with self._pg.transaction(
            before="before_commit_keyed", after="after_commit_keyed"
        ) as transaction:
            found, at = await self._look(transaction, batch)
            if again:
                found.again, found.stored = True, await _stored(transaction, batch)
            resolved = resolve(batch, found)
            new = [job for one in resolved if isinstance(one, Store) for job in one.new]
            if new:
                at = await _insert(transaction, new, _entries(batch, resolved))
            await _keep_answers(transaction, batch, resolved, at)
        self._clock.at_least(at.timestamp())
        return resolved, at

    async def store_graph(
        self, one: Submission, *, again: bool = False
    ) -> tuple[Resolution, datetime, Moved]:
        """Stores what joins a graph, unless its keys were taken, in one transaction; what became
        of it, when, and what followed at once. As store_keyed, and as graph_submissions says."""
        async with self._pg.transaction(
            before="before_commit_graph", after="after_commit_graph"
        ) as transaction:
            found, at = await self._look(transaction, [one])
            if again:
                found.again, found.stored = True, await _stored(transaction, [one])
            (resolution,) = resolve([one], found)
            walk = Walk(transaction, self.policy)
            moved = walk.moved
            if isinstance(resolution, Store):
                at, moved = await store_graph(transaction, walk, one, resolution.new)
                await note(transaction, *_entries([one], [resolution]))
            await _keep_answers(transaction, [one], [resolution], at)
        self._clock.at_least(at.timestamp())
        return resolution, at, moved

    async def _look(
        self, transaction: Transaction, batch: Sequence[Submission]
    ) -> tuple[Found, datetime]:
        """Locks what keys it can, then sees who has them; the time by Postgres."""
        requests = [one.key.id for one in batch if one.key is not None]
        uniques = list({key for one in batch for key in one.unique_keys()})
        is_large = len(uniques) > LOCKS_MAX
        if is_large:
            await transaction.rows("lock_large")
        names = [f"request {id_.hex()}" for id_ in requests]
        names += [] if is_large else [f"unique {queue}/{key}" for queue, key in uniques]
        ((at, no_large, free),) = await transaction.rows("lock_keys", names)
        busy = [] if is_large else _not(uniques, free[len(requests) :]) if no_large else uniques
        found = Found(
            busy_requests=frozenset(_not(requests, free[: len(requests)])),
            busy_keys=frozenset(busy),
        )
        if requests:
            stored = await transaction.rows("stored_answers", requests, self.answers_kept_s)
            found.answers = {row[0]: _answer(row) for row in stored}
        if uniques:
            found.holders = await holders_of(transaction, uniques)
        return found, at

    async def answer(self, key_id: bytes) -> Answer | None:
        """What a request with this key was answered, if it was and that still counts."""
        found = await self._pg.read("stored_answers", [key_id], self.answers_kept_s)
        return _answer(found[0]) if found else None


def first_ready_at(job: NewJob, now: datetime) -> datetime:
    """When a job submitted at `now` is first due; the same rule as submit_jobs."""
    if job.delay_s is not None:
        return now + timedelta(seconds=job.delay_s)
    return max(job.run_at, now) if job.run_at else now


async def _insert(
    transaction: Transaction, jobs: Sequence[NewJob], entries: Sequence[Entry]
) -> datetime:
    """Stores jobs, at least one; the time of the last statement."""
    found: list[Record] = []
    for start in range(0, len(jobs), ROWS_MAX):
        part = rows.submission(jobs[start : start + ROWS_MAX], entries)
        found = await transaction.rows("submit_jobs", *part)
        entries = ()
        if found[0][1]:
            raise Contended("unique keys were taken meanwhile")
    return found[0][0]  # type: ignore[no-any-return]


def _entries(batch: Sequence[Submission], resolved: Sequence[Resolution]) -> list[Entry]:
    """What the audit log tells of those that store something; a repeated answer does not."""
    return [
        one.entry
        for one, done in zip(batch, resolved, strict=True)
        if one.entry is not None and isinstance(done, Store) and done.new
    ]


async def _stored(transaction: Transaction, batch: Sequence[Submission]) -> frozenset[JobId]:
    ids = [job.id for one in batch for job in one.jobs]
    return frozenset(JobId(row[0]) for row in await transaction.rows("jobs_among", ids))


async def holders_of(
    transaction: Transaction, uniques: Sequence[UniqueKey]
) -> dict[UniqueKey, JobId]:
    """Which live jobs have these keys."""
    queues, keys = [queue for queue, _ in uniques], [key for _, key in uniques]
    found = await transaction.rows("unique_holders", queues, keys)
    return {uniques[row[0]]: JobId(row[1]) for row in found}


async def _keep_answers(
    transaction: Transaction,
    batch: Sequence[Submission],
    resolved: Sequence[Resolution],
    at: datetime,
) -> None:
    answers = [
        (one.key.id, one.key.body, at, done.ids, list(done.holders))
        for one, done in zip(batch, resolved, strict=True)
        if one.key is not None and isinstance(done, Store)
    ]
    if answers:
        await transaction.many("store_answer", answers)


def _answer(row: Record) -> Answer:
    _id, body, at, ids, holders = row
    return Answer(body, Accepted(at, ids, frozenset(holders), replayed=True))


def _not(keys: Sequence[K], free: Sequence[bool]) -> list[K]:
    return [key for key, is_free in zip(keys, free, strict=True) if not is_free]
