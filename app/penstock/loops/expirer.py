"""The expirer: ends due and blocked jobs whose time to live is over before they were started.

Start refuses them from that moment on, so a step that comes late changes only when their end is
seen. Several may run: each takes what no other has locked. If we die after the commit, the ids
stay on a ready shelf until they are claimed in vain, and waiters find the end by their net.
"""

from collections import Counter

from penstock.commands.sequel import Sequel
from penstock.domain.job import State
from penstock.store.graphs import Graphs
from penstock.store.jobs import Jobs
from penstock.telemetry.metrics import Metrics

_ROWS_MAX = 500
_TICK_S = 1.0


class Expirer:
    def __init__(
        self,
        jobs: Jobs,
        graphs: Graphs,
        sequel: Sequel,
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._graphs = graphs
        self._sequel = sequel
        self._enqueuer = sequel.enqueuer
        self._metrics = metrics

    async def step(self) -> float:
        """Ends what has expired, at most 500, and in one graph; the pause until the next look."""
        found = await self._graphs.expire(_ROWS_MAX)
        if found is not None:
            over, moved = found
            for queue, count in Counter(one.queue for one in over).items():
                self._metrics.jobs_expired(queue).inc(count)
            await self._sequel.play(moved)
        pause_s = await self._expire_plain()
        return 0.0 if found and found[0] else pause_s

    async def _expire_plain(self) -> float:
        ended = await self._jobs.expire(_ROWS_MAX)
        if not ended:
            return _TICK_S
        self._sequel.on_ended([one.id for one in ended])
        for queue, count in Counter(one.queue for one in ended).items():
            self._metrics.jobs_ended(queue, State.CANCELLED).inc(count)
            self._metrics.jobs_expired(queue).inc(count)
        await self._enqueuer.withdraw(ended)
        return 0.0 if len(ended) == _ROWS_MAX else _TICK_S
