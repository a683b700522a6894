"""Shutdown: claim no more, let attempts finish, stop the late ones, hand back, leave.

Handing back goes by our name in SQL, never from memory, so an attempt whose start we never heard
of goes back too. If we die or Postgres is away meanwhile, the reaper settles the rest as lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock import chaos, clock
from penstock.domain.attempt import RELEASED, Outcome
from penstock.domain.errors import StoreUnavailable
from penstock.loops.identity import Me
from penstock.loops.settle import Outgoing
from penstock.loops.worker import Hands
from penstock.settings import Worker as WorkerSettings
from penstock.store.jobs import Jobs
from penstock.store.workers import Workers
from penstock.telemetry.logs import get_logger

_LOOK_S = 0.02
_HAND_BACK_S = 5.0
_CANCELLED_S = 2.0  # what cancelled handlers get: the whole must end within grace and 5 s
_KILLED_S = 1.0  # what killed child processes get to be gone
_ROWS_MAX = 2000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drain:
    settings: WorkerSettings
    me: Me
    hands: Hands
    jobs: Jobs
    workers: Workers
    acked: Callable[[], Awaitable[None]]  # returns when the shelves know all that was settled

    async def run(self) -> None:
        """Returns when nothing of ours is left running, or its time is up."""
        self.me.draining = True
        await self._idle_within(self.settings.drain_grace_s)
        late = self.hands.pool.busy()
        for run in late:
            self.hands.pool.stop(run, Outcome.RELEASED)
        await self._idle_within(min(self.settings.cancel_grace_s, _CANCELLED_S))
        await self._end_children()
        try:
            async with asyncio.timeout(_HAND_BACK_S):
                await self._hand_back()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("drain_leaves_rest_to_reaper", why=str(error))
        log.info("drained", late=len(late))

    async def _end_children(self) -> None:
        """Those that don't heed are killed: else they would run on, as long as the front door takes
        to close, beside those who begin what is handed back."""
        children = [run for run in self.hands.pool.busy() if run.child is not None]
        for run in children:
            self.hands.pool.give_up(run)
        await self._while_within(lambda: not all(run.ended for run in children), _KILLED_S)

    async def _idle_within(self, seconds: float) -> None:
        await self._while_within(self._is_busy, seconds)

    async def _while_within(self, goes_on: Callable[[], bool], seconds: float) -> None:
        give_up_at = clock.monotonic() + seconds
        while goes_on() and clock.monotonic() < give_up_at:  # noqa: ASYNC110  # many ends
            await asyncio.sleep(_LOOK_S)

    def _is_busy(self) -> bool:
        return bool(self.hands.pool.busy() or self.hands.held.starting)

    async def _hand_back(self) -> None:
        await self.hands.settler.drained()
        if not self.me.registered:
            return
        await chaos.point("before_hand_back")
        mine = [self.me.worker]
        but = self.hands.settler.refused
        while rows := await self.jobs.running_of(mine, _ROWS_MAX, with_payload=False, but=but):
            await self.hands.settler.settle(
                Outgoing(job, RELEASED, cancel_requested=stop) for job, stop in rows
            )
        await chaos.point("before_leave")
        self.me.registered = False  # the keeper's beats end
        await self.workers.leave(self.me.worker)
        await self.acked()
