"""Looks whether Redis is still one to stand on: it may be changed, or another, while we run.

What would have stopped a start is told here, by the log, a gauge and /readyz (`degraded`): Redis is
an index, and a running replica that ends helps nobody. If we die here, nothing is lost.
"""

import asyncio
from collections.abc import Collection

from penstock.domain.safety import Fault, redis_faults, refused
from penstock.queue.checkup import state_of
from penstock.queue.redis import RedisDoor
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_REST_S = 60.0  # whoever finds that Redis is back wakes us

log = get_logger(__name__)


class RedisWatch:
    """`faults`: what was found last."""

    def __init__(self, door: RedisDoor, accepted: Collection[str], metrics: Metrics) -> None:
        self._door = door
        self._accepted = accepted
        self._metrics = metrics
        self.faults: list[Fault] = []
        self.wake = asyncio.Event()

    async def step(self) -> float:
        state = await state_of(self._door)
        found = refused(redis_faults(state), self._accepted) if state is not None else []
        for fault in found:
            self._metrics.redis_faults(fault.risk).set(1)
            if fault not in self.faults:
                log.error("redis_unsafe", found=fault.found, why=fault.why, remedy=fault.remedy)
        for fault in self.faults:
            if fault.risk not in {one.risk for one in found}:
                self._metrics.redis_faults(fault.risk).set(0)
                log.warning("redis_safe_again", fault=fault.risk)
        self.faults = found
        return _REST_S
