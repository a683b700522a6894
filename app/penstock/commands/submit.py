"""Submit: jobs into Postgres, one transaction for all submissions that gathered, then in line.

In: validated jobs with their ids, and the keys of their requests. Out: what was accepted, and the
time of the commit; a caller is answered only after it. If we die before the commit, nothing is
stored and nobody was answered; between commit and enqueue, the reconciler puts the jobs in line.
A commit whose answer was lost is sent again with the same ids: what is there already is passed
over, with its place.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from penstock import chaos, clock
from penstock.batcher import Batcher
from penstock.commands.backlog import Backlog
from penstock.commands.sequel import Sequel
from penstock.domain.errors import BadRow, Contended, PenstockError, StoreUnavailable
from penstock.domain.job import Due, NewJob, State
from penstock.domain.submission import (
    Accepted,
    Again,
    Answer,
    Refuse,
    Replay,
    RequestKey,
    Resolution,
    Source,
    Store,
    Submission,
)
from penstock.store.graph_submissions import standing
from penstock.store.health import Health
from penstock.store.jobs import ROW_BYTES, ROWS_MAX
from penstock.store.queues import Queues
from penstock.store.rows import ms
from penstock.store.submissions import LOCKS_MAX, Submissions, first_ready_at
from penstock.telemetry.metrics import Metrics

_LANES = 2  # transactions under way: one may wait for the disk while the next is made
_LARGE_LANES = 2
_SENDINGS_MAX = 3
_KEY_ROWS = ROWS_MAX // LOCKS_MAX  # a key counts for so many rows
_KEYED_LANES = 1
_TWIN_PAUSE_S = 0.02  # between two looks at a key that a twin's transaction is taking
_TWIN_LOOKS_MAX = 200  # a submission of 10,000 keys may take more than a second


# As the metric names them.
_OUTCOMES: Mapping[type[Resolution], str] = {
    Store: "stored",
    Replay: "replayed",
    Refuse: "refused",
    Again: "looked-again",
}


_Stored = tuple[Sequence[NewJob], Source]


@dataclass(slots=True, eq=False)
class _Asked:
    submission: Submission
    answer: asyncio.Future[Accepted | None]  # None: its twin is under way, ask again
    again: bool  # it was sent before, and nobody knows what came of it


class Submitter:
    def __init__(
        self,
        submissions: Submissions,
        queues: Queues,
        sequel: Sequel,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._submissions = submissions
        self._queues = queues
        self._sequel = sequel
        self._enqueuer = sequel.enqueuer
        self._health = health
        self._metrics = metrics
        self.backlog = Backlog()
        self._large = asyncio.Semaphore(_LARGE_LANES)
        self._under_way: list[Sequence[_Asked]] = []
        # Apart, so that who has no keys never waits for those who have.
        self._plain: Batcher[_Asked] = Batcher(self._flush, ROWS_MAX, _weight)
        self._keyed: Batcher[_Asked] = Batcher(self._flush, ROWS_MAX, _weight)

    async def submit(self, submission: Submission, *, again: bool = False) -> Accepted:
        """Stores all of the jobs or none, unless its keys were taken. `again`: some of them may be
        stored already, with keys that others have since then.

        StoreUnavailable, Contended, TooManyQueues, DuplicateJob, KeyBusy, KeyReused.
        """
        if new := self._queues.unknown(job.queue for job in submission.jobs):
            with self._health.watch():
                await self._queues.add(new)
        for _ in range(_TWIN_LOOKS_MAX):
            try:
                self._health.check()
            except StoreUnavailable as error:
                raise _known(error, again=again) from error
            future: asyncio.Future[Accepted | None] = asyncio.get_running_loop().create_future()
            asked = _Asked(submission, future, again)
            accepted = await self._ask(asked)
            if accepted is not None:
                return accepted
            again = asked.again
            await asyncio.sleep(_TWIN_PAUSE_S)
        raise _known(Contended("another submission is taking the same key just now"), again=again)

    async def answer(self, key: RequestKey) -> Answer | None:
        """What an earlier request with this key was answered, if that still counts."""
        with self._health.watch():
            return await self._submissions.answer(key.id)

    async def _ask(self, asked: _Asked) -> Accepted | None:
        jobs = len(asked.submission.jobs)
        self.backlog.jobs += jobs
        try:
            if _is_large(asked.submission):
                with self._health.watch():
                    async with self._large:
                        await self._store_and_answer([asked])
            elif asked.submission.has_keys:
                self._keyed.put((asked,))
            else:
                self._plain.put((asked,))
            return await asked.answer
        finally:
            self.backlog.jobs -= jobs

    async def run(self) -> None:
        """Commits what gathers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_LANES):
                group.create_task(self._plain.run())
            for _ in range(_KEYED_LANES):
                group.create_task(self._keyed.run())

    def release(self) -> None:
        """Postgres went down: nobody waits for it; what was sent may have been stored."""
        error = StoreUnavailable("it stopped answering", unknown=True)
        for batch in [*self._under_way, self._plain.waiting, self._keyed.waiting]:
            _refuse(batch, error)

    async def _flush(self, batch: Sequence[_Asked]) -> None:
        batch = [one for one in batch if not one.answer.done()]
        if not batch:
            return
        self._under_way.append(batch)
        try:
            await self._commit(batch)
        finally:
            self._under_way.remove(batch)

    async def _commit(self, batch: Sequence[_Asked]) -> None:
        try:
            await self._store_and_answer(batch)
        except BadRow as error:
            await self._isolate(batch, error)
        except (StoreUnavailable, Contended) as error:
            _refuse(batch, error)

    async def _isolate(self, batch: Sequence[_Asked], error: BadRow) -> None:
        """A row that Postgres refuses must not refuse the others'."""
        if len(batch) == 1:
            _refuse(batch, error)
            return
        half = len(batch) // 2
        await self._commit(batch[:half])
        await self._commit(batch[half:])

    async def _store_and_answer(self, batch: Sequence[_Asked]) -> None:
        for sending in range(1, _SENDINGS_MAX + 1):
            try:
                return await self._store_once(batch)
            except (StoreUnavailable, Contended) as error:
                if isinstance(error, StoreUnavailable) and error.unknown:
                    for one in batch:
                        one.again = True
                if sending == _SENDINGS_MAX or self._health.down:
                    raise _known(error, again=any(one.again for one in batch)) from error
                await asyncio.sleep(0.05 * sending)
        raise AssertionError

    async def _store_once(self, batch: Sequence[_Asked]) -> None:
        began = clock.monotonic()
        if batch[0].submission.is_graph:
            await self._store_graph(batch[0])
            return
        if batch[0].submission.has_keys:
            stored, committed_at = await self._store_keyed(batch)
            jobs = [job for new, _source in stored for job in new]
        else:
            stored = [(one.submission.jobs, one.submission.source) for one in batch]
            jobs = [job for one in batch for job in one.submission.jobs]
            entries = [one.submission.entry for one in batch if one.submission.entry is not None]
            committed_at = await self._submissions.store(jobs, entries)
            for one in batch:
                _tell(one, Accepted(committed_at, [job.id for job in one.submission.jobs]))
        self._metrics.batch_seconds("submit").observe(clock.monotonic() - began)
        self._metrics.batch_rows("submit").observe(len(jobs))
        self._count(stored)
        await chaos.point("before_enqueue")
        self._enqueue(jobs, committed_at)

    async def _store_graph(self, one: _Asked) -> None:
        resolution, at, moved = await self._submissions.store_graph(one.submission, again=one.again)
        if one.submission.has_keys:
            self._metrics.submissions_keyed(_OUTCOMES[type(resolution)]).inc()
        if isinstance(resolution, Store):
            states = standing(resolution.new, moved, at)
            _tell(one, Accepted(at, resolution.ids, resolution.holders, standing=states))
            self._count([(resolution.new, one.submission.source)])
            await chaos.point("before_enqueue_graph")
            self._enqueue([job for job in resolution.new if not job.parents], at)
            self._enqueuer.block(
                _due(job, at) for job in resolution.new if states.get(job.id) is State.BLOCKED
            )
            await self._sequel.play(moved)
        else:
            self._answer_keyed(one, resolution, at)

    async def _store_keyed(self, batch: Sequence[_Asked]) -> tuple[list[_Stored], datetime]:
        """The jobs that were stored, and when."""
        stored: list[_Stored] = []
        submissions = [one.submission for one in batch]
        again = any(one.again for one in batch)
        resolved, at = await self._submissions.store_keyed(submissions, again=again)
        for one, resolution in zip(batch, resolved, strict=True):
            self._metrics.submissions_keyed(_OUTCOMES[type(resolution)]).inc()
            if isinstance(resolution, Store):
                stored.append((resolution.new, one.submission.source))
            self._answer_keyed(one, resolution, at)
        return stored, at

    def _answer_keyed(self, one: _Asked, resolution: Resolution, at: datetime) -> None:
        match resolution:
            case Store(_, ids, holders):
                _tell(one, Accepted(at, ids, holders))
            case Replay(accepted):
                _tell(one, accepted)
            case Refuse(error):
                _refuse([one], error)
            case Again():
                _tell(one, None)
            case _:
                assert_never(resolution)

    def _enqueue(self, jobs: Sequence[NewJob], now: datetime) -> None:
        now_ms = ms(now)
        self._enqueuer.put(
            _due(job, now)
            if job.run_at or job.delay_s
            else Due(job.id, job.queue, job.kind, job.priority, now_ms)
            for job in jobs
        )

    def _count(self, stored: Sequence[_Stored]) -> None:
        counts: Counter[tuple[str, Source]] = Counter()
        for jobs, source in stored:
            counts.update((job.queue, source) for job in jobs)
        for (queue, source), count in counts.items():
            self._metrics.jobs_submitted(queue, source).inc(count)


def _due(job: NewJob, now: datetime) -> Due:
    return Due(job.id, job.queue, job.kind, job.priority, ms(first_ready_at(job, now)))


def _known(error: StoreUnavailable | Contended, *, again: bool) -> StoreUnavailable | Contended:
    """What a caller may hear: that the last sending did nothing says nothing of those before."""
    if not again or (isinstance(error, StoreUnavailable) and error.unknown):
        return error
    return StoreUnavailable("it didn't answer an earlier sending", unknown=True)


def _is_large(submission: Submission) -> bool:
    """Too large to share a transaction with others, who would wait for it, or for a lock of its
    own."""
    if submission.is_graph:
        return True
    return len(submission.jobs) > ROWS_MAX or len(submission.unique_keys()) > LOCKS_MAX


def _weight(asked: _Asked) -> int:
    """Rows that it counts for: a statement is bounded by bytes and by locks too."""
    submission = asked.submission
    rows = sum(1 + len(job.payload) // ROW_BYTES for job in submission.jobs)
    if submission.has_keys:
        rows += _KEY_ROWS * (1 + len(submission.unique_keys()))
    return rows


def _tell(asked: _Asked, accepted: Accepted | None) -> None:
    if not asked.answer.done():
        asked.answer.set_result(accepted)


def _refuse(batch: Sequence[_Asked], error: PenstockError) -> None:
    for one in batch:
        if not one.answer.done():
            one.answer.set_exception(error)
