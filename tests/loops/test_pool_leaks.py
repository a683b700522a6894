"""What a handler leaves behind: it doesn't reach the next run, and nobody waits for it."""

import asyncio
import contextvars
import decimal
import threading
from contextlib import suppress

import pytest

from penstock.domain.attempt import Outcome
from penstock.loops.pool import Run
from tests.loops.pools import Alone, alone, turns
from tests.support.waiting import eventually

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def binding(payload: str) -> str:
    """Answers what it found, and leaves something else behind."""
    found = WHO.get()
    WHO.set(payload)
    await asyncio.sleep(0)
    assert WHO.get() == payload, "its own is kept while it runs"
    return found


async def binding_and_failing() -> None:
    WHO.set("failed")
    raise ValueError


async def binding_and_clinging() -> None:
    WHO.set("clung")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return


async def tidy() -> str:
    found = WHO.get()
    WHO.reset(WHO.set("for a while"))
    return found


async def rounding() -> int:
    found = decimal.getcontext().prec
    decimal.getcontext().prec = 3
    return found


async def coroutine_name() -> int:
    return id(asyncio.current_task())


async def test_what_a_handler_binds_does_not_reach_the_next() -> None:
    async with alone() as one:
        for payload in ('"a"', '"b"', '"c"'):
            assert (await one.result(binding, payload=payload)).result == '"nobody"'
            assert (await one.result(tidy)).result == '"nobody"'
        assert (await one.result(binding_and_failing)).outcome is Outcome.FAILED
        assert (await one.result(tidy)).result == '"nobody"'
        clinging = one.put(binding_and_clinging)
        await turns()
        one.pool.stop(clinging, Outcome.CANCELLED)
        await one.ending(clinging)
        assert (await one.result(tidy)).result == '"nobody"'
        precision = decimal.DefaultContext.prec
        for _ in range(3):
            assert (await one.result(rounding)).result == str(precision)


async def test_what_was_bound_where_the_pool_was_made_does_not_reach_handlers() -> None:
    token = WHO.set("the engine")
    async with alone() as one:
        assert (await one.result(tidy)).result == '"nobody"'
        run = one.run_of(tidy)
        one.pool.put([run])
        assert (await one.ending(run)).result == '"nobody"'
    WHO.reset(token)


async def test_a_coroutine_of_the_pool_goes_on_when_nothing_was_left_behind() -> None:
    async with alone() as one:
        names = {(await one.result(coroutine_name)).result for _ in range(5)}
        await one.result(tidy)
        names.add((await one.result(coroutine_name)).result)
        assert len(names) == 1, "a task per job would cost more than the job"


async def test_many_that_bind_lose_no_run_and_no_slot() -> None:
    async with alone(slots=8) as one:
        runs = [one.run_of(binding, payload=f'"{n}"') for n in range(300)]
        one.pool.put(runs)
        endings = [await one.ending(run) for run in runs]
        assert {ending.result for ending in endings} == {'"nobody"'}
        await turns()
        assert one.coroutines.free == 8


class Leaving:
    """A handler that leaves a task behind."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.task: asyncio.Task[str] | None = None

    async def __call__(self) -> str:
        WHO.set("left")
        self.task = asyncio.create_task(self._left())
        return "done"

    async def _left(self) -> str:
        await self.gate.wait()
        return WHO.get()


async def succeeds(one: Alone) -> None:
    assert (await one.result(tidy)).result == '"nobody"'


async def test_a_task_that_was_left_behind_lives_on_and_holds_nobody() -> None:
    async with alone() as one:
        leaving = Leaving()

        async def handler() -> str:
            return await leaving()

        assert (await one.result(handler)).outcome is Outcome.SUCCEEDED
        assert one.coroutines.free == 1
        await succeeds(one)
        assert leaving.task is not None
        assert not leaving.task.done()
        leaving.gate.set()
        assert await leaving.task == "left", "with what its handler had bound"
        await succeeds(one)


async def test_a_cancel_does_not_reach_what_was_left_behind() -> None:
    async with alone() as one:
        leaving = Leaving()

        async def handler() -> None:
            await leaving()
            await asyncio.sleep(60)

        run = one.put(handler)
        await turns()
        one.pool.stop(run, Outcome.CANCELLED)
        assert (await one.ending(run)).outcome is Outcome.CANCELLED
        assert leaving.task is not None
        leaving.gate.set()
        assert await leaving.task == "left"


@pytest.mark.parametrize("awaits", [True, False])
async def test_a_task_of_a_handler_that_fails_touches_only_who_awaits_it(awaits: bool) -> None:
    left: list[asyncio.Task[None]] = []

    async def failing() -> None:
        raise ValueError

    async def handler() -> None:
        left.append(asyncio.create_task(failing()))
        if awaits:
            await left[0]

    async with alone() as one:
        outcome = (await one.result(handler)).outcome
        assert outcome is (Outcome.FAILED if awaits else Outcome.SUCCEEDED)
        await turns()
        await succeeds(one)
        assert isinstance(left[0].exception(), ValueError)


async def test_the_lane_that_has_leaked_most_of_its_slots_is_known() -> None:
    async def clinging() -> None:
        ends = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < ends:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    def deaf() -> None:
        gate.wait(10)

    gate = threading.Event()
    async with alone(slots=4, threads=2, cancel_grace_s=0.01) as one:
        assert one.pool.leakiest() is None
        first = one.put(clinging, timeout_s=0.01)
        await until_leaked(one, first)
        assert one.pool.leakiest() == (one.coroutines, 1, 25.0)
        second = one.put(deaf, timeout_s=0.01)
        await until_leaked(one, second)
        assert one.pool.leakiest() == (one.threads, 1, 50.0)
        gate.set()

        async def look() -> bool:
            return one.pool.leakiest() is None

        await eventually(look, "both have ended after all")


async def until_leaked(one: Alone, run: Run) -> None:
    async def look() -> bool:
        await one.pool.check_deadlines()
        return run.leaked

    await eventually(look, "it is leaked", every_s=0.01)
