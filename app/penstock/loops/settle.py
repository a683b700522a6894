"""Settlement: outcome -> decide() -> one transaction for all outcomes that gathered -> the line.

In: (attempt, ending) pairs from the pool, the reaper, the drain. Out: rows moved, leases acked,
retries in line, waiters told. The fence makes it safe to send a batch again: a row that is gone
is stale, or was settled by the first sending (`settled_before` tells). Jobs of graphs go a way of
their own, since it waits for locks; those that turn out to be of one change over to it. If we die
here, what had not committed stands in job_running under our name: the reaper settles it as lost.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import orjson

from penstock import chaos, clock
from penstock.batcher import Batcher
from penstock.clock import ServerClock
from penstock.commands.change import Places
from penstock.commands.sequel import Sequel
from penstock.domain import ids
from penstock.domain.alike import fingerprint, place_of
from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.effect import EndedJob, NewEffect, Policy, wishes_from
from penstock.domain.errors import BadRow, Contended, PenstockError, StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Due, Started, State
from penstock.domain.verdict import Verdict
from penstock.handlers.context import named
from penstock.loops.backoff import backoff_s
from penstock.loops.fanout import Fanout
from penstock.loops.judge import Judge
from penstock.loops.tallies import count_settled
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
    Settlements,
)
from penstock.store.rows import ms
from penstock.store.walk import Moved
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

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
    ran_s: float | None = None  # None: nobody knows
    changed_over: bool = field(default=False, init=False)  # to the way of graphs: not done yet

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
    """Settles plain jobs and, a way apart, those of graphs."""

    def __init__(
        self,
        places: Places,
        sequel: Sequel,
        metrics: Metrics,
        judge: Judge,
        policy: Policy,
    ) -> None:
        self._jobs = places.jobs
        self._graphs = places.graphs
        self._sequel = sequel
        self._enqueuer = sequel.enqueuer
        self._metrics = metrics
        self._judge = judge
        self.policy = policy
        self.refused: dict[JobId, None] = {}  # running rows that nothing settles, oldest first
        self._plain: Batcher[Outgoing] = Batcher(self._flush, ROWS_MAX, weight)
        self._in_graphs: Batcher[Outgoing] = Batcher(self._flush, ROWS_MAX, weight)
        self.unsettled = 0
        self.unsettled_bytes = 0
        self._flushing: set[float] = set()  # since when
        self.fanout: Fanout  # these two are set by who wires us
        self.now_ms: Callable[[], int] = ServerClock().now_ms  # Postgres' clock
        metrics.unsettled.set_function(lambda: self.unsettled)

    async def run(self) -> None:
        """Settles what gathers until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plain.run())
            group.create_task(self._in_graphs.run())

    async def drained(self) -> None:
        """Returns when all that was put is settled."""
        await self.fanout.drained()
        await self._plain.drained()  # some of it may change over
        await self._in_graphs.drained()

    def is_stuck(self) -> bool:
        """Whether one batch has been under way for longer than an outage is worth waiting."""
        now = clock.monotonic()
        return any(now - since > _STUCK_S for since in self._flushing)

    def put(self, outgoing: Outgoing) -> None:
        self.unsettled += 1
        self.unsettled_bytes += outgoing.size
        if outgoing.children:
            self.fanout.put(outgoing)  # which passes it on
        else:
            self.pass_on(outgoing)

    def pass_on(self, outgoing: Outgoing) -> None:
        """To its settlement: what it submitted is stored."""
        self._way_of(outgoing).put((outgoing,))

    def _way_of(self, outgoing: Outgoing) -> Batcher[Outgoing]:
        return self._plain if outgoing.job.graph_id is None else self._in_graphs

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
        began = clock.monotonic()
        self._flushing.add(began)
        await self._keep_reports(batch)
        await self._settle(batch)
        self._metrics.batch_rows("settle").observe(len(batch))
        self._metrics.batch_seconds("settle").observe(clock.monotonic() - began)
        self._flushing.discard(began)
        for outgoing in batch:
            if outgoing.changed_over:
                continue
            self.unsettled -= 1
            self.unsettled_bytes -= outgoing.size
            outgoing.done()

    async def _settle(self, batch: Sequence[Outgoing]) -> None:
        self._judge.count(outgoing.job.kind for outgoing in batch)
        settlements = [self._decided(outgoing) for outgoing in batch]
        try:
            made, moved = await self._settle_until_answered(settlements)
        except BadRow as error:
            await self._isolate(batch, error)
            return
        await chaos.point("before_ack")
        settled, elsewhere = made.settled, made.held | made.linked.keys()
        self._after([s for s in settlements if (s.job.id, s.job.attempt) not in elsewhere], settled)
        if moved is not None:
            await self._sequel.play(moved, but={id_ for id_, _attempt in settled})
        for outgoing in batch:
            if graph := made.linked.get((outgoing.job.id, outgoing.job.attempt)):
                self._change_over(outgoing, graph)
        if held := made.held:
            await self._settle([_cancelled(o) for o in batch if (o.job.id, o.job.attempt) in held])

    def _change_over(self, outgoing: Outgoing, graph: JobId) -> None:
        """A child was submitted while it ran: the graph must be locked for its end. What it had to
        report is kept already."""
        linked = replace(
            outgoing, job=replace(outgoing.job, graph_id=graph), logs=(), progress=None
        )
        linked.size = outgoing.size
        outgoing.changed_over = True
        self._in_graphs.put((linked,))

    async def _settle_until_answered(
        self, settlements: Sequence[Settlement]
    ) -> tuple[Settlements, Moved | None]:
        unknown, failures = False, 0
        while True:
            try:
                await chaos.point("before_settle")
                made, moved = await self._send(settlements)
                if unknown:
                    before = await self._jobs.settled_before(settlements)
                    made.settled = {**before, **made.settled}
                return made, moved
            except (StoreUnavailable, Contended) as error:
                unknown = unknown or (isinstance(error, StoreUnavailable) and error.unknown)
                failures += 1
                await _pause(failures, error)

    async def _send(self, settlements: Sequence[Settlement]) -> tuple[Settlements, Moved | None]:
        if settlements[0].job.graph_id is None:
            return await self._jobs.settle(settlements), None
        return await self._graphs.settle(settlements)

    async def _isolate(self, batch: Sequence[Outgoing], error: BadRow) -> None:
        """One row that Postgres refuses must not hold the others: halve until it stands alone."""
        if len(batch) == 1 and batch[0].gave_up:
            log.error("job_can_not_be_settled", why=str(error), **named(batch[0].job))
            self._metrics.unsettleable.inc()
            self._refuse(batch[0].job.id)
            return
        if len(batch) == 1:
            log.error("job_settled_as_internal_error", why=str(error), **named(batch[0].job))
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
            log.exception("job_settled_as_internal_error", **named(outgoing.job))
            return self._settlement(_internal_error(outgoing, traceback.format_exc(limit=-5)))

    def _settlement(self, outgoing: Outgoing) -> Settlement:
        job, ending = outgoing.job, outgoing.ending
        verdict = self._judge.verdict(job, ending, cancel_requested=outgoing.cancel_requested)
        error = orjson.dumps(ending.failure.as_json()).decode() if ending.failure else None
        cancel_known = outgoing.cancel_requested or ending.outcome is Outcome.CANCELLED
        mark = _fingerprint(job, ending) if verdict.state is State.DEAD else None
        effects: Sequence[NewEffect] = ()
        if verdict.state is not None and not self.policy.is_silent(verdict.state, job.notify):
            effects = self.policy.of_job(_ended(job, verdict))
        ran_s = outgoing.ran_s
        return Settlement(job, ending, verdict, error, cancel_known, effects, mark, ran_s)

    def _after(self, settlements: Sequence[Settlement], settled: dict[Attempt, Settled]) -> None:
        """Acks leases, puts retries in line, counts, tells those who wait."""
        due: list[Due] = []
        off: list[Off] = []
        ended: list[JobId] = []
        ours: list[Settlement] = []
        for one in settlements:
            job = one.job
            done = settled.get((job.id, job.attempt))
            if done is None:
                continue
            ours.append(one)
            off.append(Off(job.queue, job.id, ended=done.ready_at is None))
            if done.ready_at is None:
                ended.append(job.id)
            else:
                due.append(Due(job.id, job.queue, job.kind, job.priority, ms(done.ready_at)))
        self._enqueuer.put(due, off)
        if ended:
            self._sequel.on_ended(ended)
        if any(one.effects for one in settlements):
            self._sequel.on_effects()
        count_settled(self._metrics, ours, self.now_ms())
        self._metrics.stale_settlements.inc(len(settlements) - len(settled))
        _log_failures(ours)

    async def _keep_reports(self, batch: Sequence[Outgoing]) -> None:
        """Before the settlement: who sees the end sees all that was told until then."""
        await keep_logs(self._jobs, [line for outgoing in batch for line in outgoing.logs])
        told = [outgoing.progress for outgoing in batch if outgoing.progress is not None]
        await keep_progress(self._jobs, told)


def _ended(job: Started, verdict: Verdict) -> EndedJob:
    assert verdict.state is not None
    wishes = wishes_from(job.notify)
    told = (verdict.state, verdict.reason, job.tags, wishes)
    return EndedJob(job.id, job.attempt, job.queue, job.kind, *told)


def _fingerprint(job: Started, ending: Ending) -> str:
    failure = ending.failure
    if failure is None:
        return fingerprint(job.kind, ending.outcome, "")
    return fingerprint(job.kind, failure.type, place_of(failure.details))


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
    """The same one, with what is known by now: whoever waits for it waits for this."""
    outgoing.cancel_requested = True
    return outgoing


def _internal_error(outgoing: Outgoing, why: str) -> Outgoing:
    failure = Failure("internal-error", "penstock could not settle this attempt", why[-2000:])
    outgoing.ending = Ending(Outcome.FAILED, failure=failure, retryable=False)
    outgoing.gave_up = True
    return outgoing


async def _pause(failures: int, error: PenstockError) -> None:
    if failures % 20 == 1:
        log.warning("settlement_waits", why=str(error), failures=failures)
    await asyncio.sleep(backoff_s(failures))
