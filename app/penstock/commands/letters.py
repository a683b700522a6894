"""Replay and discard dead letters.

One is replayed on the same road as a retry. Many are replayed oldest first: jobs of no graph by the
hundred in one statement, those of graphs one by one, for some seconds at most; what is left is said
so, and is left to another call. If we die amid it, what was moved is in line or found by the
reconciler, and the rest stays dead.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from penstock import clock
from penstock.commands.change import Changes
from penstock.commands.sequel import Sequel
from penstock.domain import ids
from penstock.domain.audit_log import Entry
from penstock.domain.errors import (
    Contended,
    DuplicateJob,
    JobNotFound,
    PenstockError,
    StoreUnavailable,
    WrongState,
    WrongWorkflowState,
)
from penstock.domain.ids import JobId
from penstock.domain.letter import Renewal, Resolution
from penstock.domain.submission import Source
from penstock.store.health import Health
from penstock.store.letters import OLDEST, Candidates, LetterFilter, Letters, beyond
from penstock.store.queues import Queues
from penstock.store.walk import Moved

REPLAYS_MAX = 10_000  # by one call
TOLD_MAX = 20  # of those that can't run again, so many are told one by one
_AT_ONCE = 500  # by one statement
_TIME_MAX_S = 10.0
_SEARCHES_MAX = 10  # of 20,000 letters each
_STAYS = (WrongState, WrongWorkflowState, DuplicateJob, JobNotFound, Contended)


@dataclass(slots=True)
class Replayed:
    """What came of a replay by filter: letters that were wanted, jobs that run again, jobs that
    couldn't, and why the first of those couldn't; whether there is more that wasn't looked at."""

    matched: int = 0
    replayed: int = 0
    failed: int = 0
    failures: list[tuple[JobId, PenstockError]] = field(default_factory=list)
    more: bool = False


@dataclass(slots=True)
class _Course:
    """A replay under way. `spacing_s`: seconds between two jobs. `entry()` makes one for the audit
    log: each of its transactions leaves one, with how many it replayed."""

    by: str
    spacing_s: float
    until: float
    entry: Callable[[], Entry | None]
    done: Replayed = field(default_factory=Replayed)
    seen: set[JobId] = field(default_factory=set)

    @property
    def is_late(self) -> bool:
        return clock.monotonic() > self.until


class DeadLetters:
    def __init__(
        self, letters: Letters, changes: Changes, queues: Queues, sequel: Sequel, health: Health
    ) -> None:
        self._letters = letters
        self._changes = changes
        self._queues = queues
        self._sequel = sequel
        self._health = health
        self._lane = asyncio.Semaphore(1)  # replays of many: one at a time

    async def replay(self, id_: JobId, renewal: Renewal) -> None:
        """Gives the job of an open letter a new life. JobNotFound, WrongState, DuplicateJob,
        TooManyQueues."""
        if renewal.queue is not None and (new := self._queues.unknown([renewal.queue])):
            with self._health.watch():
                await self._queues.add(new)
        await self._changes.retry(id_, replace(renewal, how=Resolution.REPLAYED))

    async def discard(self, id_: JobId, by: str, entry: Entry | None = None) -> bool:
        """Resolves a job's open letter; it stays dead. Whether there was one. `entry`: what the
        audit log tells of it."""
        with self._health.watch():
            return await self._letters.discard(id_, by, entry)

    async def count(self, of: LetterFilter) -> Replayed:
        """What `replay_all` would find."""
        course = _Course("", 0.0, clock.monotonic() + _TIME_MAX_S, lambda: None)
        async for found in self._found(of, course):
            course.done.matched += len(found.plain) + len(found.in_graphs)
        return course.done

    async def replay_all(
        self,
        of: LetterFilter,
        by: str,
        rate_per_s: float | None,
        entry: Callable[[], Entry | None] = lambda: None,
    ) -> Replayed:
        """Replays what a filter wants, the oldest first, 10,000 at most; with a rate, so many a
        second begin. What can't run again stays. Contended while another one is under way."""
        if self._lane.locked():
            raise Contended("dead letters are being replayed by another filter just now")
        async with self._lane:
            spacing_s = 1.0 / rate_per_s if rate_per_s else 0.0
            course = _Course(by, spacing_s, clock.monotonic() + _TIME_MAX_S, entry)
            try:
                await self._replay(of, course)
            except StoreUnavailable:
                if not course.done.replayed:
                    raise
                course.done.more = True  # that something was done must not be kept quiet
            return course.done

    async def _replay(self, of: LetterFilter, course: _Course) -> None:
        async for found in self._found(of, course):
            await self._replay_plain(found.plain, course)
            for id_ in found.in_graphs:
                if course.is_late:
                    course.done.more = True
                    break
                delay_s = course.spacing_s * course.done.matched
                course.done.matched += 1
                await self._replay_one(id_, delay_s, course)

    async def _found(self, of: LetterFilter, course: _Course) -> AsyncIterator[Candidates]:
        """Page by page; what dies again meanwhile is left out."""
        of = replace(of, start=OLDEST)
        searches = 0
        while True:
            found = await self._letters.to_replay(of, _AT_ONCE)
            new = found.without(course.seen)
            course.seen.update(new.plain, new.in_graphs)
            searches += not (new.plain or new.in_graphs)
            yield new
            if found.next is None:
                return
            if course.is_late or len(course.seen) >= REPLAYS_MAX or searches >= _SEARCHES_MAX:
                course.done.more = True
                return
            of = beyond(of, found.next)

    async def _replay_plain(self, wanted: Sequence[JobId], course: _Course) -> None:
        if not wanted:
            return
        first = course.done.matched
        delays_s = [course.spacing_s * (first + n) for n in range(len(wanted))]
        course.done.matched += len(wanted)
        with self._health.watch():
            due = await self._letters.replay_plain(wanted, delays_s, course.by, course.entry())
        course.done.replayed += len(due)
        await self._sequel.play(Moved(due=due), source=Source.REPLAY)
        moved = {one.id for one in due}
        for id_, delay_s in zip(wanted, delays_s, strict=True):
            if id_ in moved:
                continue
            if len(course.done.failures) < TOLD_MAX:
                await self._replay_one(id_, delay_s, course)  # by itself it says what is in its way
            else:
                course.done.failed += 1

    async def _replay_one(self, id_: JobId, delay_s: float, course: _Course) -> None:
        entry = course.entry()
        if entry is not None:
            entry = entry.about(ids.text(id_), entry.queue, replayed=1)
        renewal = Renewal(course.by, Resolution.REPLAYED, delay_s=delay_s, entry=entry)
        try:
            await self._changes.retry(id_, renewal)
        except _STAYS as error:
            course.done.failed += 1
            if len(course.done.failures) < TOLD_MAX:
                course.done.failures.append((id_, error))
        else:
            course.done.replayed += 1
