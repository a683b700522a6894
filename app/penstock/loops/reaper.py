"""The reaper: condemns workers that fell silent and settles what stands under dead names as lost.

The same road as a failure: outcome, verdict, settlement, line. It goes by names only, never by
deadlines (those are the holder's). Several reapers may run: the fence lets each row go once. If we
die here, the next step of any replica does the same again.
"""

import random

from penstock import chaos
from penstock.domain.attempt import LOST
from penstock.loops.settle import Outgoing, Settler
from penstock.store.jobs import Jobs
from penstock.store.workers import Workers
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_TICK_S = 1.0
_ROWS_MAX = 500

log = get_logger(__name__)


class Reaper:
    def __init__(
        self, workers: Workers, jobs: Jobs, settler: Settler, metrics: Metrics, ttl_s: float
    ) -> None:
        self._workers = workers
        self._jobs = jobs
        self._settler = settler
        self._metrics = metrics
        self._ttl_s = ttl_s

    async def step(self) -> float:
        condemned = await self._workers.condemn(self._ttl_s)
        if condemned:
            log.warning("workers_condemned", count=len(condemned))
            self._metrics.workers_condemned.inc(len(condemned))
            await chaos.point("after_condemn")
        names = await self._workers.orphaning()
        if not names:
            await self._workers.forget_condemned()
            return self._tick_s()
        but = self._settler.refused
        rows = await self._jobs.running_of(names, _ROWS_MAX, with_payload=False, but=but)
        await self._settler.settle(Outgoing(job, LOST, cancel_requested=stop) for job, stop in rows)
        self._metrics.reaped.inc(len(rows))
        return 0.0 if len(rows) == _ROWS_MAX else self._tick_s()

    def _tick_s(self) -> float:
        return min(_TICK_S, self._ttl_s / 5) * random.uniform(0.75, 1.25)
