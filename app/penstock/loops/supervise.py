"""How every loop runs: a step, a pause or a wake-up, the next step.

An unreachable service is backed off from and counted; anything else that a step raises is a bug
and ends the process (the orchestrator starts it anew; fence and reaper make that safe).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penstock import clock
from penstock.domain.errors import Unavailable
from penstock.loops.backoff import backoff_s
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0
_LOG_EVERY = 20
_STUCK_S = 30.0

log = get_logger(__name__)


@dataclass(slots=True)
class Loop:
    """A repeating coroutine. `step` answers how long to pause in seconds; `wake` ends a pause."""

    name: str
    step: Callable[[], Awaitable[float]]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    listens: bool = False  # its step waits for messages and may take for ever
    turned_at: float = field(default_factory=clock.monotonic)
    busy_since: float | None = None
    failures: int = 0
    ended: bool = False  # its task is over: nobody turns it any more

    def age_s(self) -> float:
        """Seconds since its last step came to an end, good or bad."""
        return clock.monotonic() - self.turned_at

    def is_stuck(self) -> bool:
        """Whether one step has been under way for longer than any should take."""
        if self.listens or self.busy_since is None:
            return False
        return clock.monotonic() - self.busy_since > _STUCK_S


async def run(loop: Loop, metrics: Metrics) -> None:
    """Repeats the loop's step until cancelled."""
    try:
        await _repeat(loop, metrics)
    finally:
        loop.ended = True


async def _repeat(loop: Loop, metrics: Metrics) -> None:
    while True:
        loop.wake.clear()
        loop.busy_since = clock.monotonic()
        try:
            pause = await loop.step()
            loop.failures = 0
        except Unavailable as error:
            pause = _back_off(loop, error)
            metrics.loop_failures(loop.name).inc()
        loop.turned_at, loop.busy_since = clock.monotonic(), None
        if loop.failures:
            await asyncio.sleep(pause)  # whole: wake-ups come in floods while a service is away
        else:
            await pause_or_wake(loop.wake, pause)


async def pause_or_wake(wake: asyncio.Event, pause_s: float) -> None:
    if pause_s <= 0 or wake.is_set():
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(pause_s):
            await wake.wait()
    except TimeoutError:
        pass


def _back_off(loop: Loop, error: Unavailable) -> float:
    loop.failures += 1
    if loop.failures % _LOG_EVERY == 1:
        log.warning("loop_backs_off", loop=loop.name, why=str(error), failures=loop.failures)
    return backoff_s(loop.failures - 1, _BACKOFF_FIRST_S, _BACKOFF_MAX_S)
