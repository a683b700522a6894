"""The expirer: ends due jobs whose time to live is over before they were started.

Start refuses them from that moment on, so a step that comes late changes only when their end is
seen. Several may run: each takes what no other has locked. If we die after the commit, the ids
stay on a ready shelf until they are claimed in vain, and waiters find the end by their net.
"""

from collections import Counter
from collections.abc import Callable

from penstock.commands.enqueuer import Enqueuer
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.store.jobs import Jobs
from penstock.telemetry.metrics import Metrics

_ROWS_MAX = 500
_TICK_S = 1.0


class Expirer:
    """`on_ended(ids)` hears of jobs that are over, for those who wait for them."""

    def __init__(
        self,
        jobs: Jobs,
        enqueuer: Enqueuer,
        metrics: Metrics,
        on_ended: Callable[[list[JobId]], None],
    ) -> None:
        self._jobs = jobs
        self._enqueuer = enqueuer
        self._metrics = metrics
        self._on_ended = on_ended

    async def step(self) -> float:
        """Ends what has expired, at most 500; the pause until the next look."""
        ended = await self._jobs.expire(_ROWS_MAX)
        if not ended:
            return _TICK_S
        self._on_ended([one.id for one in ended])
        for queue, count in Counter(one.queue for one in ended).items():
            self._metrics.jobs_ended(queue, State.CANCELLED).inc(count)
            self._metrics.jobs_expired(queue).inc(count)
        await self._enqueuer.withdraw(ended)
        return 0.0 if len(ended) == _ROWS_MAX else _TICK_S
