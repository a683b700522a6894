"""Jobs of kind `workflow`: an attempt of theirs is a workflow, not a handler's run.

In: started attempts, held by this replica. Out: the workflow that the payload asks for, stored in
the transaction that gives the running row to it: from then on the job holds no slot and no replica,
and ends in the transaction that ends the workflow. If we die before that commit, the reaper finds
the row under our name and another replica starts over; after it, the reconciler puts the workflow's
jobs in line. A second life of the job goes on with the workflow of the first: what succeeded is
kept.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterable, Sequence

from penstock.batcher import Batcher
from penstock.commands.sequel import Sequel
from penstock.domain import ids
from penstock.domain.attempt import CANCELLED, Ending, Failure, Outcome
from penstock.domain.errors import (
    BadRow,
    Contended,
    DuplicateJob,
    PenstockError,
    StoreUnavailable,
    TooManyQueues,
)
from penstock.domain.job import Started
from penstock.domain.submission import Submission
from penstock.loops.backoff import backoff_s
from penstock.loops.held import Held
from penstock.loops.settle import Outgoing, Settler
from penstock.queue.shelves import Off
from penstock.store.nested import Nested
from penstock.store.queues import Queues
from penstock.telemetry.logs import get_logger

_ATONCE = 8  # jobs a batch; each is a transaction
_CONTENDED_MAX = 20
_IN_A_THREAD_BYTES = 20_000  # of payload: reading more is too long for the event loop

log = get_logger(__name__)

Read = Callable[[Started], Submission]  # raises ValueError: what its payload asks for is wrong


class Nester:
    """`read(job)` makes a submission of a job's payload; it is set by who knows how. `held` learns
    which jobs are here: nobody may take them for lost."""

    def __init__(
        self, nested: Nested, queues: Queues, sequel: Sequel, settler: Settler, held: Held
    ) -> None:
        self._nested = nested
        self._queues = queues
        self._sequel = sequel
        self._settler = settler
        self._held = held
        self.read: Read
        self._batcher: Batcher[Started] = Batcher(self._flush, _ATONCE)
        self.run = self._batcher.run
        self.drained = self._batcher.drained

    def put(self, jobs: Iterable[Started]) -> None:
        jobs = list(jobs)
        self._held.nesting.update(job.id for job in jobs)
        self._batcher.put(jobs)

    async def _flush(self, batch: Sequence[Started]) -> None:
        await asyncio.gather(*(self._nest(job) for job in batch))

    async def _nest(self, job: Started) -> None:
        try:
            ending = await self._begun(job)
        except Exception:  # one job's data must not end the process (A20)
            log.exception("nesting_failed", job_id=ids.text(job.id))
            ending = _failed("internal-error", traceback.format_exc(limit=-5))
        finally:
            self._held.nesting.discard(job.id)
        if ending is not None:
            self._settler.put(Outgoing(job, ending))

    async def _begun(self, job: Started) -> Ending | None:
        """None: the attempt is a workflow now, or isn't ours any more; else how it ended."""
        try:
            submission = await self._read(job)
        except ValueError as error:
            return _failed("bad-payload", str(error))
        failures = 0
        while True:
            try:
                return await self._store(job, submission)
            except StoreUnavailable as error:
                failures += 1
                if failures % 20 == 1:
                    log.warning("nesting_waits", job_id=ids.text(job.id), why=str(error))
            except Contended as error:
                failures += 1
                if failures >= _CONTENDED_MAX:
                    return Ending(Outcome.FAILED, failure=Failure("contended", str(error)))
            except (BadRow, TooManyQueues, DuplicateJob) as error:
                return _failed(_slug(error), str(error))
            await asyncio.sleep(backoff_s(failures))

    async def _read(self, job: Started) -> Submission:
        if len(job.payload) <= _IN_A_THREAD_BYTES:
            return self.read(job)
        return await asyncio.to_thread(self.read, job)

    async def _store(self, job: Started, submission: Submission) -> Ending | None:
        if new := self._queues.unknown(one.queue for one in submission.jobs):
            await self._queues.add(new)
        nesting = await self._nested.store(job, submission)
        if nesting.refused is not None:
            return _failed("nested-too-deep", nesting.refused)
        if nesting.asked_to_stop:
            return CANCELLED
        enqueuer = self._sequel.enqueuer
        enqueuer.put(nesting.due, [Off(job.queue, job.id)])
        enqueuer.block(nesting.blocked)
        await self._sequel.play(nesting.moved)
        return None


def _slug(error: PenstockError) -> str:
    if isinstance(error, DuplicateJob):
        return "duplicate-job"
    return "too-many-queues" if isinstance(error, TooManyQueues) else "payload-refused"


def _failed(type_: str, message: str) -> Ending:
    return Ending(Outcome.FAILED, failure=Failure(type_, message[:2000]), retryable=False)
