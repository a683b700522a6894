"""Settlement: outcome -> decide() -> one transaction for all outcomes that gathered -> the line.

In: (attempt, ending) pairs from the pool, the reaper, the drain. Out: rows moved, leases acked,
retries in line, waiters told. The fence makes it safe to send a batch again: a row that is gone
is stale, or was settled by the first sending (`settled_before` tells). If we die here, what had
not committed stands in job_running under our name, and the reaper settles it as lost.
"""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import orjson

from penstock import chaos, clock
from penstock.batcher import Batcher
from penstock.commands.enqueuer import Enqueuer
from penstock.domain import ids
from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.errors import BadRow, StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Due, Started, State
from penstock.loops.fanout import Fanout
from penstock.loops.judge import Judge
from penstock.queue.shelves import Off
from penstock.store.jobs import (
    ROW_BYTES,
    ROWS_MAX,
    Attempt,
    Jobs,
    LogRow,
    ProgressRow,
    Settled,
    Settlement,
)
from penstock.store.rows import ms
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_RETRY_FIRST_S = 0.02
_RETRY_MAX_S = 0.5
_STUCK_S = 30.0
_REFUSED_MAX = 1000

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Outgoing:
    """One ended attempt on its way to Postgres. `size` counts towards the limit of unsettled."""

    job: Started
    ending: Ending
    logs: Sequence[LogRow] = ()
    progress: ProgressRow | None = None
    cancel_requested: bool = False
    gave_up: bool = False  # it says "internal-error" already: there is nothing more to try
    children: Sequence[bytes] = ()  # jobs that it submitted, as JSON texts: stored before it
    done: Callable[[], None] = field(default=lambda: None)

    size: int = field(init=False)  # bytes, about

    def __post_init__(self) -> None:
        result, lines = self.ending.result, self.logs
        self.size = 200 + len(result or "") + sum(100 + len(line[5]) for line in lines)
        self.size += sum(len(child) for child in self.children)


def weight(outgoing: Outgoing) -> int:
    """Rows that it counts for: a statement is bounded by bytes too, else large results would
    make one that never ends in time."""
    return 1 + outgoing.size // ROW_BYTES


class Settler:
    """`on_ended(ids)` hears of jobs that are over, for those who wait for them."""

    def __init__(
        self,
        jobs: Jobs,
        enqueuer: Enqueuer,
        metrics: Metrics,
        judge: Judge,
        on_ended: Callable[[list[JobId]], None],
    ) -> None:
        self._jobs = jobs
        self._enqueuer = enqueuer
        self._metrics = metrics
        self._judge = judge
        self._on_ended = on_ended
        self.refused: dict[JobId, None] = {}  # running rows that nothing settles, oldest first
        self._batcher: Batcher[Outgoing] = Batcher(self._flush, ROWS_MAX, weight)
        self.unsettled = 0
        self.unsettled_bytes = 0
        self._flushing_since: float | None = None
        self.run = self._batcher.run
        self.fanout: Fanout  # set by who wires us

    def is_stuck(self) -> bool:
        """Whether one batch has been under way for longer than an outage is worth waiting."""
        since = self._flushing_since
        return since is not None and clock.monotonic() - since > _STUCK_S

    def put(self, outgoing: Outgoing) -> None:
        self.unsettled += 1
        self.unsettled_bytes += outgoing.size
        if outgoing.children:
            self.fanout.put(outgoing)  # which passes it on
        else:
            self.pass_on(outgoing)

    def pass_on(self, outgoing: Outgoing) -> None:
        """To its settlement: what it submitted is stored."""
        self._batcher.put((outgoing,))

    async def drained(self) -> None:
        """Returns when all that was put is settled."""
        await self.fanout.drained()
        await self._batcher.drained()

    async def settle(self, batch: Iterable[Outgoing]) -> None:
        """Puts a batch and returns when all of it is settled, or found to be stale."""
        left = list(batch)
        if not left:
            return
        everything = asyncio.Event()
        count = len(left)

        def one_done() -> None:
            nonlocal count
            count -= 1
            if count == 0:
                everything.set()

        for outgoing in left:
            outgoing.done = one_done
            self.put(outgoing)
        await everything.wait()

    async def _flush(self, batch: Sequence[Outgoing]) -> None:
        """Settles a batch however long Postgres is away: nobody else knows these outcomes."""
        began = self._flushing_since = clock.monotonic()
        await self._keep_reports(batch)
        await self._settle(batch)
        self._metrics.batch_rows("settle").observe(len(batch))
        self._metrics.batch_seconds("settle").observe(clock.monotonic() - began)
        self._flushing_since = None
        for outgoing in batch:
            self.unsettled -= 1
            self.unsettled_bytes -= outgoing.size
            outgoing.done()

    async def _settle(self, batch: Sequence[Outgoing]) -> None:
        self._judge.count(outgoing.job.kind for outgoing in batch)
        settlements = [self._decided(outgoing) for outgoing in batch]
        try:
            settled, held = await self._settle_until_answered(settlements)
        except BadRow as error:
            await self._isolate(batch, error)
            return
        await chaos.point("before_ack")
        self._after([s for s in settlements if (s.job.id, s.job.attempt) not in held], settled)
        if held:
            await self._settle([_cancelled(o) for o in batch if (o.job.id, o.job.attempt) in held])

    async def _settle_until_answered(
        self, settlements: Sequence[Settlement]
    ) -> tuple[dict[Attempt, Settled], set[Attempt]]:
        unknown, failures = False, 0
        while True:
            try:
                await chaos.point("before_settle")
                settled, held = await self._jobs.settle(settlements)
                if unknown:
                    settled = {**await self._jobs.settled_before(settlements), **settled}
                return settled, held
            except StoreUnavailable as error:
                unknown = unknown or error.unknown
                failures += 1
                await _pause(failures, error)

    async def _isolate(self, batch: Sequence[Outgoing], error: BadRow) -> None:
        """One row that Postgres refuses must not hold the others: halve until it stands alone."""
        if len(batch) == 1 and batch[0].gave_up:
            job = batch[0].job
            log.error("job_can_not_be_settled", job_id=ids.text(job.id), why=str(error))
            self._metrics.unsettleable.inc()
            self._refuse(job.id)
            return
        if len(batch) == 1:
            log.error("job_settled_as_internal_error", why=str(error))
            await self._settle([_internal_error(batch[0], f"PostgreSQL refused it: {error}")])
            return
        half = len(batch) // 2
        await self._settle(batch[:half])
        await self._settle(batch[half:])

    def _refuse(self, id_: JobId) -> None:
        """Remembers a row that Postgres lets go in no way, so that nobody here takes it up again:
        its handler would run every few seconds, for ever."""
        self.refused[id_] = None
        while len(self.refused) > _REFUSED_MAX:
            del self.refused[next(iter(self.refused))]

    def _decided(self, outgoing: Outgoing) -> Settlement:
        try:
            return self._settlement(outgoing)
        except Exception:  # one job's data must not end the process (A20)
            log.exception("job_settled_as_internal_error")
            return self._settlement(_internal_error(outgoing, traceback.format_exc(limit=-5)))

    def _settlement(self, outgoing: Outgoing) -> Settlement:
        job, ending = outgoing.job, outgoing.ending
        verdict = self._judge.verdict(job, ending, cancel_requested=outgoing.cancel_requested)
        error = orjson.dumps(ending.failure.as_json()).decode() if ending.failure else None
        cancel_known = outgoing.cancel_requested or ending.outcome is Outcome.CANCELLED
        return Settlement(job, ending, verdict, error, cancel_known)

    def _after(self, settlements: Sequence[Settlement], settled: dict[Attempt, Settled]) -> None:
        """Acks leases, puts retries in line, counts, tells those who wait."""
        due: list[Due] = []
        off: list[Off] = []
        ended: list[JobId] = []
        counts: dict[tuple[str, str], int] = {}
        for one in settlements:
            job = one.job
            done = settled.get((job.id, job.attempt))
            if done is None:
                continue
            off.append(Off(job.queue, job.id, ended=done.ready_at is None))
            counts[job.kind, one.ending.outcome] = counts.get((job.kind, one.ending.outcome), 0) + 1
            if done.ready_at is None:
                ended.append(job.id)
            else:
                due.append(Due(job.id, job.queue, job.kind, job.priority, ms(done.ready_at)))
        self._enqueuer.put(due, off)
        if ended:
            self._on_ended(ended)
        self._count(settlements, settled, counts)

    def _count(
        self,
        settlements: Sequence[Settlement],
        settled: dict[Attempt, Settled],
        counts: dict[tuple[str, str], int],
    ) -> None:
        for (kind, outcome), count in counts.items():
            self._metrics.attempts(kind, outcome).inc(count)
        ends: dict[tuple[str, str], int] = {}
        for one in settlements:
            if one.verdict.state and (one.job.id, one.job.attempt) in settled:
                key = (one.job.queue, one.verdict.state)
                ends[key] = ends.get(key, 0) + 1
        for (queue, state), count in ends.items():
            self._metrics.jobs_ended(queue, state).inc(count)
        _log_failures([one for one in settlements if (one.job.id, one.job.attempt) in settled])
        self._metrics.stale_settlements.inc(len(settlements) - len(settled))

    async def _keep_reports(self, batch: Sequence[Outgoing]) -> None:
        """Before the settlement: who sees the end sees all that was told until then."""
        await keep_logs(self._jobs, [line for outgoing in batch for line in outgoing.logs])
        told = [outgoing.progress for outgoing in batch if outgoing.progress is not None]
        await keep_progress(self._jobs, told)


def _log_failures(settlements: Sequence[Settlement]) -> None:
    """One line a batch for each kind that failed, with one of its errors: never one a job."""
    failed: dict[tuple[str, bool], list[Settlement]] = {}
    for one in settlements:
        if one.ending.failure is not None:
            is_dead = one.verdict.state is State.DEAD
            failed.setdefault((one.job.kind, is_dead), []).append(one)
    for (kind, is_dead), ones in failed.items():
        sample = ones[0]
        error = sample.ending.failure
        assert error is not None
        tell = log.warning if is_dead else log.info
        tell(
            "jobs_died" if is_dead else "attempts_failed",
            kind=kind,
            count=len(ones),
            job_id=ids.text(sample.job.id),
            error=f"{error.type}: {error.message}",
        )


async def keep_logs(jobs: Jobs, lines: Sequence[LogRow]) -> None:
    """Writes log lines, however long it takes; a slice that Postgres refuses is dropped."""
    await _keep(jobs.add_logs, lines, "log_lines_dropped")


async def keep_progress(jobs: Jobs, told: Sequence[ProgressRow]) -> None:
    """The same with reports of progress."""
    await _keep(jobs.add_progress, told, "progress_dropped")


async def _keep(
    add: Callable[[Sequence[T]], Awaitable[None]], rows: Sequence[T], dropped: str
) -> None:
    failures = 0
    left = list(rows)
    while left:
        try:
            await add(left[:ROWS_MAX])
        except StoreUnavailable as error:
            failures += 1
            await _pause(failures, error)
            continue
        except BadRow as error:
            log.error(dropped, count=len(left[:ROWS_MAX]), why=str(error))
        del left[:ROWS_MAX]


def _cancelled(outgoing: Outgoing) -> Outgoing:
    return Outgoing(outgoing.job, outgoing.ending, cancel_requested=True)


def _internal_error(outgoing: Outgoing, why: str) -> Outgoing:
    failure = Failure("internal-error", "penstock could not settle this attempt", why[-2000:])
    ending = Ending(Outcome.FAILED, failure=failure, retryable=False)
    return Outgoing(outgoing.job, ending, cancel_requested=outgoing.cancel_requested, gave_up=True)


async def _pause(failures: int, error: StoreUnavailable) -> None:
    if failures % 20 == 1:
        log.warning("settlement_waits", why=str(error), failures=failures)
    longest = min(_RETRY_FIRST_S * 2 ** min(failures, 10), _RETRY_MAX_S)
    await asyncio.sleep(longest * random.uniform(0.5, 1.0))
