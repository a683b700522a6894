"""Enters this replica in `workers`, at its start and after it was condemned.

Condemned means that others may have settled our running attempts as lost: their handlers are
stopped, their endings will be stale, and a new name is taken. If we die here, a name without
running rows expires and is forgotten.
"""

import asyncio
import os
import socket

from penstock import VERSION, clock
from penstock.domain.attempt import Outcome
from penstock.loops.held import Held
from penstock.loops.identity import Me
from penstock.loops.pool import Pool
from penstock.store.workers import Beat, Identity, Workers
from penstock.telemetry.logs import get_logger

_REST_S = 60.0

log = get_logger(__name__)


def identity_of(queues: tuple[str, ...], kinds: tuple[str, ...], slots: int) -> Identity:
    """How this process enters itself."""
    return Identity(socket.gethostname(), os.getpid(), VERSION, queues, kinds, slots)


class Registrar:
    def __init__(self, workers: Workers, me: Me, identity: Identity, held: Held, pool: Pool):
        self._workers = workers
        self._me = me
        self._identity = identity
        self._held = held
        self._pool = pool
        self.wake = asyncio.Event()

    async def step(self) -> float:
        """Registers if we have no name that stands."""
        if not self._me.registered and not self._me.draining:
            sent = clock.monotonic()
            worker = self._me.renew_name()
            await self._workers.register(worker, self._identity, self._me.ttl_s)
            self._me.beat_at, self._me.registered = sent, True
        return _REST_S

    def hear_beat(self, worker: bytes, beat: Beat) -> None:
        """What the keeper learnt: whether we live, and which attempts should stop."""
        if worker != self._me.worker:
            return
        if not beat.alive:
            self._be_condemned()
        for id_ in beat.cancel:
            if run := self._pool.find(id_):
                self._pool.stop(run, Outcome.CANCELLED)

    def _be_condemned(self) -> None:
        log.warning("condemned", running=len(self._held.runs))
        self._me.registered = False
        for run in list(self._held.runs.values()):
            self._pool.stop(run, Outcome.LOST)
        self._held.runs.clear()
        self.wake.set()
