"""The worker: claims ids within its free slots, starts them in Postgres, hands them to the pool.

In: wake-ups. Out: runs in the pool. Always holds: never more claimed than slots are free. If we
die between claim and start, the ids' leases end and they return to the line; between start and
run, the rows stand under our name and the reaper finds them. A start whose answer was lost is
sent again; what it had moved the first time is adopted. A job of a graph is told of its parents
before it runs: when Postgres is away just then, it is left to adoption as well.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock import chaos, clock
from penstock.domain.attempt import RELEASED, Outcome
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.workflow import KIND, NO_KIN, Kin
from penstock.handlers.errors import PermanentError, failure_of
from penstock.handlers.parents import resolved_around
from penstock.loops.backoff import backoff_s
from penstock.loops.claims import Claims, Taken
from penstock.loops.held import Held
from penstock.loops.nesting import Nester
from penstock.loops.parts import Parts
from penstock.loops.pool import Lane, Pool, Run
from penstock.loops.settle import Outgoing, Settler
from penstock.loops.tallies import count_started
from penstock.queue.shelves import Off
from penstock.store.parents import Parents

_REST_S = 0.25  # when no claims are allowed, or no slot is free: until the next look
_ADOPT_S = 10.0
_ADOPT_SOON_S = 0.5  # after a lost answer: what was sent may be carried out only now
_ADOPT_MAX = 100  # payloads come along; more are taken in by the next step
_START_BYTES = 64 * 1024 * 1024  # of payloads a start should bring at most


@dataclass(frozen=True, slots=True)
class Hands:
    """What the worker works with: its slots, what it holds, and where endings go."""

    pool: Pool
    held: Held
    settler: Settler
    nester: Nester
    parents: Parents
    run_of: Callable[[Started], Run | None]  # None: not a kind that we serve


class Worker:
    def __init__(self, parts: Parts, hands: Hands, claims: dict[str, Claims]) -> None:
        self._parts = parts
        self._hands = hands
        self._claims = claims  # by lane
        self._mean_bytes = 1  # of recent payloads
        self.wake = asyncio.Event()
        self.adopt_wake = asyncio.Event()
        self._adopt_soon_until = 0.0

    def heat(self, queues: Iterable[str]) -> None:
        """A commit somewhere put something in line."""
        queues = list(queues)
        for claims in self._claims.values():
            claims.heat(queues)
        self.wake.set()

    async def step(self) -> float:
        """Fills the free slots; the pause until the next look."""
        if not self._may_claim():
            return _REST_S
        pauses = [_REST_S * 4]
        for lane in self._hands.pool.lanes:
            if lane.kinds and lane.free > 0:
                found = await self._fill(lane)
                pauses.append(0.0 if found else self._claims[lane.name].pause_s())
        return min(pauses)

    async def adopt(self) -> float:
        """Takes in what stands under our name and isn't known here: a start's answer was lost."""
        held = self._hands.held
        here = held.departed = held.ids()
        but, mine = here.union(self._hands.settler.refused), [self._parts.me.worker]
        rows = await self._parts.jobs.running_of(mine, _ADOPT_MAX, with_payload=True, but=but)
        if rows:
            await chaos.point("before_adopt")
        kin = await self._kin_of([job for job, _stop in rows])
        known, held.departed = held.departed, None
        if self._parts.me.draining:
            return _ADOPT_S  # the drain hands back what stands under our name
        strangers = [(j, stop) for j, stop in rows if j.id not in known and j.id not in held]
        self._parts.metrics.adopted.inc(len(strangers))
        for job, cancel_requested in strangers:
            for run in self._take_in([job], kin):
                if cancel_requested:
                    self._hands.pool.stop(run, Outcome.CANCELLED)
        if strangers:
            return 0.0
        return _ADOPT_SOON_S if clock.monotonic() < self._adopt_soon_until else _ADOPT_S

    def _may_claim(self) -> bool:
        limits, settler = self._parts.settings.worker, self._hands.settler
        return (
            self._parts.me.may_claim
            and settler.unsettled < limits.unsettled_max
            and settler.unsettled_bytes < limits.unsettled_max_bytes
        )

    async def _fill(self, lane: Lane) -> int:
        """Claims and starts for the free slots of a lane; how many ids the line gave."""
        count = min(lane.free, max(_START_BYTES // self._mean_bytes, 1))
        lane.reserved += count
        try:
            taken = await self._claims[lane.name].take(count)
            started = await self._start(taken) if taken else []
        finally:
            lane.reserved -= count
        if len(started) < len(taken):
            await self._put_back(taken, started)
        return len(taken)

    async def _start(self, taken: Taken) -> list[Started]:
        ids = [id_ for _, id_ in taken]
        self._hands.held.starting.update(ids)
        began = clock.monotonic()
        try:
            started = await self._start_until_answered(ids)
            await chaos.point("before_handler")
            plain = [job for job in started if job.graph_id is None]
            self._take_in(plain, {})
            self._learn_size([len(job.payload) for job in plain])
            await self._take_in_told([job for job in started if job.graph_id is not None])
            return started
        finally:
            self._hands.held.starting.difference_update(ids)
            self._parts.metrics.batch_rows("start").observe(len(taken))
            self._parts.metrics.batch_seconds("start").observe(clock.monotonic() - began)

    async def _start_until_answered(self, ids: list[JobId]) -> list[Started]:
        worker, failures = self._parts.me.worker, 0
        while self._parts.me.worker == worker and not self._parts.me.draining:
            try:
                started = await self._parts.jobs.start(ids, worker)
            except StoreUnavailable:
                failures += 1
                await asyncio.sleep(backoff_s(failures))
                continue
            if failures:
                # An earlier sending may have moved some, or does so as long as Postgres lets it.
                self._adopt_soon()
            return started
        return []

    def _adopt_soon(self) -> None:
        limit_s = self._parts.settings.postgres.command_timeout_s
        self._adopt_soon_until = clock.monotonic() + limit_s
        self.adopt_wake.set()

    async def _take_in_told(self, started: Sequence[Started]) -> None:
        """Those of graphs, once they know of their parents; adoption does it if that fails."""
        if not started:
            return
        try:
            kin = await self._kin_of(started)
        except StoreUnavailable:
            self._adopt_soon()
            return
        self._learn_size([len(job.payload) + _bytes_of(kin[job.id]) for job in started])
        if not self._parts.me.draining:  # else the drain hands them back
            self._take_in(started, kin)

    async def _kin_of(self, started: Iterable[Started]) -> Mapping[JobId, Kin]:
        """Of those that are part of a graph. Raises StoreUnavailable."""
        linked = [job for job in started if job.graph_id is not None]
        return await self._hands.parents.of(linked) if linked else {}

    def _take_in(self, started: Iterable[Started], kin: Mapping[JobId, Kin]) -> list[Run]:
        runs = []
        started = list(started)
        count_started(self._parts.metrics, started)
        for job in started:
            if job.kind == KIND:
                self._nest(job, kin.get(job.id, NO_KIN))
                continue
            run = self._hands.run_of(job)
            if run is None:  # somebody put its id on the wrong shelf: back it goes, to its own
                self._hands.settler.put(Outgoing(job, RELEASED))
                continue
            run.context.kin = kin.get(job.id, NO_KIN)
            self._hands.held.add(run)
            runs.append(run)
        self._hands.pool.put(runs)
        me = self._parts.me
        for run in runs:
            if run.job.worker != me.worker or not me.registered:
                self._hands.pool.stop(run, Outcome.LOST)  # we were condemned meanwhile
        return runs

    def _nest(self, job: Started, kin: Kin) -> None:
        bytes_max = self._parts.settings.worker.payload_max_bytes
        try:
            payload = resolved_around(job.payload, kin, bytes_max)
        except PermanentError as error:
            self._hands.settler.put(Outgoing(job, failure_of(error)))
        else:
            self._hands.nester.put([replace(job, payload=payload)])

    def _learn_size(self, sizes: Sequence[int]) -> None:
        """Keeps the mean size of recent payloads, with parents' results: what comes is likely to be
        like it."""
        if sizes:
            mean = sum(sizes) // len(sizes)
            self._mean_bytes = max((self._mean_bytes + mean) // 2, mean, 1)

    async def _put_back(self, taken: Taken, started: Iterable[Started]) -> None:
        """What start didn't move goes back to its shelf if it is still due (early, paused or
        locked), and off its lease in any case."""
        moved = {job.id for job in started}
        rest = [Off(queue, id_) for queue, id_ in taken if id_ not in moved]
        left = await self._parts.jobs.left([one.id for one in rest])
        if any(one.paused for one in left):
            self._parts.book.wake.set()  # our copy doesn't know of the pause yet
        # The expirer ends what has expired; on a shelf it would only be claimed again.
        self._parts.enqueuer.put([one.due for one in left if not one.expired], rest)
        self._parts.metrics.stale_claims.inc(len(rest) - len(left))


def _bytes_of(kin: Kin) -> int:
    return sum(len(parent.result) for parent in kin.parents.values())
