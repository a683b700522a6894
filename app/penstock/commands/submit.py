"""Submit: jobs into Postgres, one transaction for all submissions that gathered, then in line.

In: validated jobs with their ids. Out: the time of the commit; a caller is answered only after
it. If we die before the commit, nothing is stored and nobody was answered; between commit and
enqueue, the reconciler puts the jobs in line. A commit whose answer was lost is sent again with
the same ids: what is there already is passed over, with its place.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock import clock
from penstock.batcher import Batcher
from penstock.commands.enqueuer import Enqueuer
from penstock.domain.errors import BadRow, PenstockError, StoreUnavailable
from penstock.domain.job import Due, NewJob
from penstock.store.health import Health
from penstock.store.jobs import ROW_BYTES, ROWS_MAX, Jobs, first_ready_at
from penstock.store.queues import Queues
from penstock.store.rows import ms
from penstock.telemetry.metrics import Metrics

_LANES = 2  # transactions under way: one may wait for the disk while the next is made
_LARGE_LANES = 2
_SENDINGS_MAX = 3


@dataclass(slots=True, eq=False)
class _Submission:
    jobs: Sequence[NewJob]
    committed_at: asyncio.Future[datetime]


class Submitter:
    def __init__(
        self,
        jobs: Jobs,
        queues: Queues,
        enqueuer: Enqueuer,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._queues = queues
        self._enqueuer = enqueuer
        self._health = health
        self._metrics = metrics
        self._large = asyncio.Semaphore(_LARGE_LANES)
        self._under_way: list[Sequence[_Submission]] = []
        self._batcher: Batcher[_Submission] = Batcher(self._flush, ROWS_MAX, _weight)

    async def submit(self, jobs: Sequence[NewJob]) -> datetime:
        """Stores all of the jobs or none; Postgres' time of it. StoreUnavailable, TooManyQueues."""
        self._health.check()
        if new := self._queues.unknown(job.queue for job in jobs):
            with self._health.watch():
                await self._queues.add(new)
        if len(jobs) > ROWS_MAX:
            with self._health.watch():
                async with self._large:
                    committed_at = await self._store(jobs)
            self._enqueue(jobs, committed_at)
            return committed_at
        answer: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
        self._batcher.put((_Submission(jobs, answer),))
        return await answer

    async def run(self) -> None:
        """Commits what gathers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_LANES):
                group.create_task(self._batcher.run())

    def release(self) -> None:
        """Postgres went down: nobody waits for it; what was sent may have been stored."""
        error = StoreUnavailable("it stopped answering", unknown=True)
        for batch in [*self._under_way, self._batcher.waiting]:
            _refuse(batch, error)

    async def _flush(self, batch: Sequence[_Submission]) -> None:
        batch = [one for one in batch if not one.committed_at.done()]
        if not batch:
            return
        self._under_way.append(batch)
        try:
            await self._commit(batch)
        finally:
            self._under_way.remove(batch)

    async def _commit(self, batch: Sequence[_Submission]) -> None:
        jobs = [job for one in batch for job in one.jobs]
        try:
            committed_at = await self._store(jobs)
        except BadRow as error:
            await self._isolate(batch, error)
        except StoreUnavailable as error:
            _refuse(batch, error)
        else:
            for one in batch:
                if not one.committed_at.done():
                    one.committed_at.set_result(committed_at)
            self._enqueue(jobs, committed_at)

    async def _isolate(self, batch: Sequence[_Submission], error: BadRow) -> None:
        """A row that Postgres refuses must not refuse the others'."""
        if len(batch) == 1:
            _refuse(batch, error)
            return
        half = len(batch) // 2
        await self._commit(batch[:half])
        await self._commit(batch[half:])

    async def _store(self, jobs: Sequence[NewJob]) -> datetime:
        for sending in range(1, _SENDINGS_MAX + 1):
            try:
                return await self._store_once(jobs)
            except StoreUnavailable:
                if sending == _SENDINGS_MAX or self._health.down:
                    raise
                await asyncio.sleep(0.05 * sending)
        raise AssertionError

    async def _store_once(self, jobs: Sequence[NewJob]) -> datetime:
        began = clock.monotonic()
        committed_at = await self._jobs.submit(jobs)
        self._metrics.batch_seconds("submit").observe(clock.monotonic() - began)
        self._metrics.batch_rows("submit").observe(len(jobs))
        return committed_at

    def _enqueue(self, jobs: Sequence[NewJob], now: datetime) -> None:
        now_ms = ms(now)
        self._enqueuer.put(
            Due(
                job.id,
                job.queue,
                job.kind,
                job.priority,
                ms(first_ready_at(job, now)) if job.run_at or job.delay_s else now_ms,
            )
            for job in jobs
        )
        for queue, count in Counter(job.queue for job in jobs).items():
            self._metrics.jobs_submitted(queue).inc(count)


def _weight(submission: _Submission) -> int:
    """Rows that it counts for: a statement is bounded by bytes too."""
    return sum(1 + len(job.payload) // ROW_BYTES for job in submission.jobs)


def _refuse(batch: Sequence[_Submission], error: PenstockError) -> None:
    for one in batch:
        if not one.committed_at.done():
            one.committed_at.set_exception(error)
