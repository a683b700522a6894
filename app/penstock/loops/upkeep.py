"""Small loops: what long attempts log and report, counts, gauges, leaks."""

import asyncio
from collections.abc import Mapping

from penstock import clock
from penstock.clock import ServerClock
from penstock.loops.pool import Pool
from penstock.loops.settle import keep_logs, keep_progress
from penstock.store.jobs import Jobs
from penstock.store.queues import Queues
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_REPORTS_S = 1.0
_FOLD_S = 5.0
_GAUGES_S = 1.0

log = get_logger(__name__)


class Upkeep:
    """`leaky` is set when handlers have taken too many slots away: nothing short of a new process
    brings them back."""

    def __init__(
        self, jobs: Jobs, queues: Queues, pool: Pool, metrics: Metrics, leaks_max_percent: float
    ) -> None:
        self._jobs = jobs
        self._queues = queues
        self._pool = pool
        self._metrics = metrics
        self._leaks_max_percent = leaks_max_percent
        self.leaky = asyncio.Event()
        self._gauged_at = clock.monotonic()
        self.clocks: Mapping[str, ServerClock] = {}  # whose difference from ours is told

    async def keep_reports(self) -> float:
        """What attempts under way have logged, and how far they have come: a statement for all of
        them. The rest is written when they are settled."""
        busy = self._pool.busy()
        await keep_logs(self._jobs, [line for run in busy for line in run.log_rows()])
        told = [row for run in busy if (row := run.progress_row()) is not None]
        await keep_progress(self._jobs, told)
        return _REPORTS_S

    async def fold_counts(self) -> float:
        await self._queues.fold_counts()
        return _FOLD_S

    async def gauges(self) -> float:
        """Slots, tasks, and how late the event loop wakes us."""
        now = clock.monotonic()
        self._metrics.loop_lag.observe(max(now - self._gauged_at - _GAUGES_S, 0.0))
        self._gauged_at = now
        for lane in self._pool.lanes:
            if lane.kinds:
                free = max(lane.free, 0)
                self._metrics.slots(lane.name, "free").set(free)
                self._metrics.slots(lane.name, "busy").set(lane.slots - free)
        self._metrics.leaked_slots.set(self._pool.leaked())
        alone = [lane for lane in self._pool.lanes if lane.children]
        self._metrics.children("busy").set(sum(len(lane.running) for lane in alone))
        self._metrics.children("waiting").set(sum(len(lane.waiting) for lane in alone))
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        for server, its_clock in self.clocks.items():
            self._metrics.clock_ahead(server).set(round(its_clock.ahead_s(), 3))
        self._look_for_leaks()
        return _GAUGES_S

    def _look_for_leaks(self) -> None:
        found = self._pool.leakiest()
        if found is None or found[2] <= self._leaks_max_percent or self.leaky.is_set():
            return
        lane, leaked, percent = found
        log.warning(
            "too_many_leaks",
            lane=lane.name,
            leaked=leaked,
            slots=lane.slots,
            percent=round(percent, 1),
            kinds=sorted({run.job.kind for run in lane.running if run.leaked}),
            hint="these handlers ignore their end; drains and leaves with 75, to be started again",
        )
        self.leaky.set()
