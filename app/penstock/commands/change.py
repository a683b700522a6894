"""Cancel and retry a job, pause and resume a queue.

Each tries the places in turn, one guarded statement a place, until a row moves or the job proves
to be where it can't be moved from. If we die after a commit, Redis is told nothing: a stale id
costs one claim, a retried job is found by the reconciler, a cancel by the worker's next beat.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from penstock.commands.sequel import Sequel
from penstock.domain.audit_log import Entry
from penstock.domain.errors import (
    Contended,
    DuplicateJob,
    JobNotFound,
    WrongState,
)
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, State
from penstock.domain.letter import RETRY, Renewal, Resolution
from penstock.domain.submission import Source
from penstock.queue import keys
from penstock.store.graphs import Graphs
from penstock.store.health import Health
from penstock.store.jobs import Jobs
from penstock.store.queues import Queues
from penstock.store.walk import Moved
from penstock.telemetry.metrics import Metrics

_LANES = 3  # calls under way: a flood of them must leave connections for settlements
_TRIES_MAX = 20  # a job that keeps moving between two looks is met again soon


@dataclass(frozen=True, slots=True)
class Places:
    """Where jobs stand, and how they move."""

    jobs: Jobs
    graphs: Graphs


class Changes:
    """`on_settings()` has this replica read the queues' settings anew."""

    def __init__(
        self, places: Places, queues: Queues, sequel: Sequel, health: Health, metrics: Metrics
    ) -> None:
        self._jobs = places.jobs
        self._graphs = places.graphs
        self._queues = queues
        self._sequel = sequel
        self._enqueuer = sequel.enqueuer
        self._health = health
        self._metrics = metrics
        self._lanes = asyncio.Semaphore(_LANES)
        self.on_settings: Callable[[], None] = lambda: None

    async def cancel(self, id_: JobId, entry: Entry | None = None) -> None:
        """Ends a waiting job, or asks a running one to stop. JobNotFound, WrongState. `entry`: what
        the audit log tells of it, here and below."""
        with self._health.watch():
            async with self._lanes:
                await self._cancel(id_, entry)

    async def _cancel(self, id_: JobId, entry: Entry | None) -> None:
        for _ in range(_TRIES_MAX):
            if due := await self._jobs.cancel_due(id_, entry):
                self._metrics.jobs_ended(due.queue, State.CANCELLED).inc()
                await self._enqueuer.withdraw((due,))
                return self._sequel.on_ended([id_])
            if await self._jobs.cancel_running(id_, entry):
                return await self._ask_to_stop(id_)
            if await self._cancel_in_graph(id_, entry):
                return None
            state, _ = await self._standing(id_)
            if state in TERMINAL:
                raise WrongState(state, "only a job that hasn't ended can be cancelled")
        raise Contended("the job keeps moving")

    async def _cancel_in_graph(self, id_: JobId, entry: Entry | None) -> bool:
        """Whether it waited, and doesn't any more."""
        graph = await self._graphs.graph_of(id_)
        if graph is None:
            return False
        moved = await self._graphs.cancel_job(id_, graph, entry)
        if moved is not None:
            await self._sequel.play(moved)
        return moved is not None

    async def retry(self, id_: JobId, renewal: Renewal = RETRY) -> None:
        """Gives an ended job that didn't succeed a new life; in a workflow, also what depends
        on it and didn't; `renewal` says on whose behalf. JobNotFound, WrongState,
        or DuplicateJob where another job has its unique key by now."""
        with self._health.watch():
            async with self._lanes:
                moved = await self._retry(id_, renewal)
                is_replay = renewal.how is Resolution.REPLAYED
                source = Source.REPLAY if is_replay else Source.RETRY
                await self._sequel.play(moved, source=source)

    async def _retry(self, id_: JobId, renewal: Renewal) -> Moved:
        for _ in range(_TRIES_MAX):
            try:
                if (moved := await self._graphs.retry_job(id_, renewal)) is not None:
                    return moved
            except Contended:
                await self._finish_graph(id_)
                continue
            state, holder = await self._standing(id_)
            if state not in TERMINAL or state == State.SUCCEEDED:
                raise WrongState(state, "only a dead, cancelled or skipped job can be retried")
            if holder is not None:
                raise DuplicateJob({0: holder})
        raise Contended("the job keeps moving")

    async def _finish_graph(self, id_: JobId) -> None:
        """What its graph has left to tell is told first."""
        graph = await self._graphs.graph_of(id_)
        if graph is not None:
            await self._sequel.play(await self._graphs.advance(graph))

    async def pause(self, queue: str, entry: Entry | None = None) -> None:
        await self._set_paused(queue, entry, paused=True)

    async def resume(self, queue: str, entry: Entry | None = None) -> None:
        await self._set_paused(queue, entry, paused=False)

    async def _set_paused(self, queue: str, entry: Entry | None, *, paused: bool) -> None:
        with self._health.watch():
            await self._queues.set_paused(queue, paused=paused, entry=entry)
        self.on_settings()
        await self._enqueuer.tell(keys.SETTINGS, queue.encode())

    async def _ask_to_stop(self, id_: JobId) -> None:
        self._sequel.on_cancel(id_)
        self._sequel.on_unfinished()  # it may be a workflow, which the spreader stops
        await self._enqueuer.tell(keys.CANCEL, id_)

    async def _standing(self, id_: JobId) -> tuple[str, JobId | None]:
        """The state, and the other live job that holds the unique key."""
        standing = await self._jobs.standing_of(id_)
        if standing is None:
            raise JobNotFound
        return standing
