"""How every loop runs: step, pause or wake-up, step; what is away is backed off from."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from penstock import clock
from penstock.domain.errors import QueueUnavailable, StoreUnavailable
from penstock.loops import supervise
from penstock.loops.supervise import Loop
from penstock.telemetry.metrics import Metrics

AWAY = (StoreUnavailable("gone"), QueueUnavailable("gone"))


class Steps:
    """A step that does what the script says, call by call; then it pauses for an hour."""

    def __init__(self, *script: float | Exception | Callable[[], float]) -> None:
        self._script = list(script)
        self.began_at: list[float] = []
        self._begun = asyncio.Condition()

    async def step(self) -> float:
        self.began_at.append(clock.monotonic())
        async with self._begun:
            self._begun.notify_all()
        does = self._script.pop(0) if self._script else 3600.0
        if isinstance(does, Exception):
            raise does
        return does() if callable(does) else does

    async def begun(self, count: int) -> None:
        """Returns when so many steps have begun."""
        async with asyncio.timeout(5), self._begun:
            await self._begun.wait_for(lambda: len(self.began_at) >= count)

    def gaps(self) -> list[float]:
        return [later - sooner for sooner, later in itertools.pairwise(self.began_at)]


@asynccontextmanager
async def running(
    loop: Loop, metrics: Metrics | None = None
) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(supervise.run(loop, metrics or Metrics()))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_step_says_how_long_to_pause() -> None:
    steps = Steps(0.05, 0.0, 0.1)
    async with running(Loop("some", steps.step)):
        await steps.begun(4)
        await turns()
    assert len(steps.began_at) == 4, "an hour is an hour"
    for gap, pause in zip(steps.gaps(), (0.05, 0.0, 0.1), strict=True):
        assert pause <= gap < pause + 0.5


async def test_what_is_away_is_backed_off_from_and_counted() -> None:
    metrics = Metrics()
    steps = Steps(*AWAY, *AWAY)
    loop = Loop("some", steps.step)
    async with running(loop, metrics):
        await steps.begun(5)
        await turns()
        assert loop.failures == 0, "a good step forgets the bad ones"
    assert metrics.registry.get_sample_value("penstock_loop_failures_total", {"loop": "some"}) == 4
    for gap, at_least in zip(steps.gaps(), (0.025, 0.05, 0.1, 0.2), strict=True):
        assert gap >= at_least


async def test_a_back_off_ends_within_a_second() -> None:
    for failures in (5, 50, 5000):
        loop = Loop("some", Steps(*AWAY).step, failures=failures)
        async with running(loop):
            await turns()
            assert loop.failures == failures + 1
        pause = supervise._back_off(loop, AWAY[0])
        assert 0.5 <= pause <= 1.0


async def test_a_bug_ends_the_loop() -> None:
    steps = Steps(0.0, ZeroDivisionError())
    loop = Loop("some", steps.step)
    with pytest.raises(ZeroDivisionError):
        await supervise.run(loop, Metrics())
    assert len(steps.began_at) == 2


async def test_a_wake_up_ends_a_pause() -> None:
    steps = Steps()
    loop = Loop("some", steps.step)
    async with running(loop):
        for n in range(1, 4):
            await steps.begun(n)
            await turns()
            loop.wake.set()
        await steps.begun(4)
    assert max(steps.gaps()) < 1


async def test_wake_ups_shorten_no_back_off() -> None:
    """They come in floods while a service is away."""
    steps = Steps(*AWAY)
    loop = Loop("some", steps.step, failures=2)
    async with running(loop):
        while len(steps.began_at) < 3:
            loop.wake.set()
            await asyncio.sleep(0.005)
    for gap, at_least in zip(steps.gaps(), (0.1, 0.2), strict=True):
        assert gap >= at_least


async def test_a_wake_up_during_a_step_is_not_lost() -> None:
    wake = asyncio.Event()

    def woken() -> float:
        wake.set()
        return 3600.0

    steps = Steps(woken)
    async with running(Loop("some", steps.step, wake)):
        await steps.begun(2)
        await turns()
    assert len(steps.began_at) == 2, "but it counts once"


async def test_a_loop_without_pauses_lets_the_others_run() -> None:
    steps = Steps(*[0.0] * 10_000)
    async with running(Loop("some", steps.step)):
        await turns(50)
        assert 10 <= len(steps.began_at) <= 60


async def test_only_a_long_step_is_stuck() -> None:
    gate = asyncio.Event()

    async def step() -> float:
        await gate.wait()
        return 3600.0

    loop, ears = Loop("some", step), Loop("ears", step, listens=True)
    assert not loop.is_stuck()
    async with running(loop), running(ears):
        await turns()
        assert not loop.is_stuck()
        for one in (loop, ears):
            assert one.busy_since is not None
            one.busy_since -= 31
        assert loop.is_stuck()
        assert not ears.is_stuck(), "it may wait for ever"
        loop.turned_at -= 60
        assert loop.age_s() > 59
        gate.set()
        await turns()
        assert not loop.is_stuck()
        assert loop.age_s() < 1


async def test_a_loop_that_is_over_says_so() -> None:
    steps, cancelled = Steps(ValueError("a bug")), Steps()
    loop, other = Loop("x", steps.step), Loop("y", cancelled.step)
    async with running(loop) as task:
        await asyncio.wait([task])
        assert loop.ended
        task.exception()
    async with running(other):
        await cancelled.begun(1)
        assert not other.ended
    assert other.ended
