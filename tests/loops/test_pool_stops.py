"""How runs are stopped: cancels, deadlines, the grace, and handlers that cling to their slots."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from penstock import clock
from penstock.domain.attempt import Ending, Outcome
from penstock.handlers import Context
from penstock.loops.pool import Run
from tests.loops.pools import Alone, alone, turns

STOPS = (Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.RELEASED, Outcome.LOST)


async def heeding() -> None:
    await asyncio.Event().wait()


async def tidying() -> None:
    """Needs some turns to clean up."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await turns()
        raise


async def swallowing() -> int:
    """Goes on to its success."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return 42
    return 0


async def breaking() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError from None


def asking(ctx: Context) -> None:
    while True:
        ctx.raise_if_cancelled()
        threading.Event().wait(0.001)


def asking_politely(ctx: Context) -> int:
    while not ctx.cancelled:
        threading.Event().wait(0.001)
    return 42


def asking_and_breaking(ctx: Context) -> None:
    asking_politely(ctx)
    raise ValueError


async def echo(payload: object) -> object:
    return payload


SUCCEEDS = {Outcome.CANCELLED, Outcome.RELEASED, Outcome.LOST}  # the stops that a success outlives


@pytest.mark.parametrize("why", STOPS)
@pytest.mark.parametrize(
    ("function", "success"),
    [
        (heeding, False),
        (tidying, False),
        (swallowing, True),
        (breaking, False),
        (asking, False),
        (asking_politely, True),
        (asking_and_breaking, False),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
async def test_a_stop_names_the_outcome_but_a_success_stands_unless_it_is_too_late(
    why: Outcome, function: Callable[..., object], success: bool
) -> None:
    async with alone() as one:
        run = one.put(function)
        await turns()
        one.pool.stop(run, why)
        ending = await one.ending(run)
        stands = success and why in SUCCEEDS
        assert ending.outcome is (Outcome.SUCCEEDED if stands else why)
        assert ending.result == ("42" if stands else None)
        assert run.lane.free == 1
        assert run.context.cancelled
        # What was asked of that handler doesn't reach the next one.
        assert (await one.result(echo, payload="1")).result == "1"


async def test_a_swallowed_cancel_is_not_held_against_the_next_handler() -> None:
    async def leaking() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner

    async with alone() as one:
        run = one.put(swallowing)
        await turns()
        one.pool.stop(run, Outcome.CANCELLED)
        assert (await one.ending(run)).outcome is Outcome.SUCCEEDED
        assert (await one.result(leaking)).outcome is Outcome.FAILED
        assert (await one.result(echo, payload="1")).result == "1"


async def test_the_first_reason_stands() -> None:
    async with alone() as one:
        run = one.put(tidying)
        await turns()
        for why in (Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.LOST):
            one.pool.stop(run, why)
        assert (await one.ending(run)).outcome is Outcome.CANCELLED
        over = one.put(echo, payload="1")
        await one.ending(over)
        one.pool.stop(over, Outcome.CANCELLED)
        assert over.stop is None, "after the end there is nothing to stop"


async def test_one_that_waits_ends_at_once_and_never_begins() -> None:
    begun: list[str] = []

    async def noting(payload: str) -> None:
        begun.append(payload)
        await asyncio.Event().wait()

    async with alone() as one:
        first, second = one.put(noting, payload='"first"'), one.put(noting, payload='"second"')
        await turns()
        assert one.coroutines.free == -1
        one.pool.stop(second, Outcome.RELEASED)
        assert one.endings[second].outcome is Outcome.RELEASED
        assert one.coroutines.free == 0
        one.pool.stop(first, Outcome.RELEASED)
        await one.ending(first)
        assert begun == ["first"]


async def test_one_that_is_put_and_stopped_at_once_ends() -> None:
    async with alone() as one:
        await turns()
        run = one.put(heeding)
        one.pool.stop(run, Outcome.CANCELLED)
        assert (await one.ending(run)).outcome is Outcome.CANCELLED
        assert one.coroutines.free == 1


async def ending_by_deadline(one: Alone, run: Run) -> Ending:
    """Turns the loop of deadlines, as it asks for, until the run has ended."""
    while True:
        pause = await one.pool.check_deadlines()
        await turns()
        if run in one.endings:
            return one.endings[run]
        await asyncio.sleep(pause)


async def test_after_its_deadline_an_attempt_has_timed_out() -> None:
    async with alone(slots=3) as one:
        late, other = one.put(heeding, timeout_s=0.02), one.put(heeding, timeout_s=0.5)
        await turns()
        pause = await one.pool.check_deadlines()
        assert 0.01 <= pause <= 0.02
        ending = await ending_by_deadline(one, late)
        assert ending.failure is not None
        assert (ending.outcome, ending.failure.type) == (Outcome.TIMED_OUT, "timeout")
        assert "0.02 s" in ending.failure.message
        assert clock.monotonic() >= late.deadline
        assert other not in one.endings
        assert 0.3 < await one.pool.check_deadlines() <= 0.5
        one.pool.stop(other, Outcome.CANCELLED)


async def test_one_that_waits_times_out_too() -> None:
    async with alone() as one:
        first, second = one.put(heeding), one.put(heeding, timeout_s=-1.0)
        await turns()
        await one.pool.check_deadlines()
        assert one.endings[second].outcome is Outcome.TIMED_OUT
        one.pool.stop(first, Outcome.CANCELLED)


async def test_a_nearer_deadline_shortens_the_pause() -> None:
    async with alone(slots=3) as one:
        assert await one.pool.check_deadlines() == 1.0, "at least once a second"
        far = one.put(heeding, timeout_s=60)
        assert not one.pool.checked.is_set()
        near = one.put(heeding, timeout_s=0.2)
        assert one.pool.checked.is_set()
        assert await one.pool.check_deadlines() <= 0.2
        assert not one.pool.checked.is_set()
        one.pool.stop(far, Outcome.CANCELLED)
        assert one.pool.checked.is_set(), "its grace begins"
        one.pool.stop(near, Outcome.CANCELLED)


async def leak(one: Alone, function: Callable[..., object], why: Outcome) -> None:
    """Puts a run that doesn't end when it is told to, and turns the loop until it was given up."""
    run = one.put(function)
    await asyncio.sleep(0.01)
    one.pool.stop(run, why)
    await turns()
    assert 0.01 <= await one.pool.check_deadlines() <= 0.05, "it is looked at when its grace ends"
    assert one.endings == {}, "it still has its grace"
    assert (await ending_by_deadline(one, run)).outcome is why
    assert clock.monotonic() >= run.stopped_at + 0.05


@pytest.mark.parametrize("why", [Outcome.TIMED_OUT, Outcome.CANCELLED])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_handler_that_ignores_its_end_is_settled_without_it_and_keeps_its_slot(
    why: Outcome, in_thread: bool
) -> None:
    gate, bar = asyncio.Event(), threading.Event()

    async def stubborn() -> int:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return 1

    def stubborn_in_thread() -> int:
        bar.wait(5)
        return 1

    async with alone(cancel_grace_s=0.05) as one:
        await leak(one, stubborn_in_thread if in_thread else stubborn, why)
        (run,) = one.endings
        assert (run.lane.free, one.pool.leaked(), one.pool.busy()) == (0, 1, [])
        assert one.pool.find(run.job.id) is None
        waits = one.put((lambda: 7) if in_thread else echo, payload="7")
        await one.pool.check_deadlines()
        await turns()
        assert waits not in one.endings, "its slot is not free"
        gate.set()
        bar.set()
        assert (await one.ending(waits)).outcome is Outcome.SUCCEEDED
        assert (run.lane.free, one.pool.leaked()) == (1, 0)
        assert one.times_ended[run] == 1
        assert one.endings[run].outcome is why


async def test_a_second_attempt_is_found_when_the_first_has_ended_late() -> None:
    """We were condemned, got a new name and the same job again, before the first cleaned up."""
    gate = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    async with alone(slots=2) as one:
        first, second = one.put(slow), one.run_of(heeding)
        await turns()
        one.pool.stop(first, Outcome.LOST)
        second.job = first.job
        one.pool.put([second])
        await turns()
        gate.set()
        assert (await one.ending(first)).outcome is Outcome.LOST
        assert one.pool.find(first.job.id) is second
        one.pool.stop(second, Outcome.CANCELLED)
        await one.ending(second)


@pytest.mark.parametrize("stopped_before", [False, True])
@pytest.mark.parametrize("function", [heeding, tidying, swallowing, breaking])
async def test_the_pool_closes_whatever_its_handlers_do(
    function: Callable[..., object], stopped_before: bool
) -> None:
    async def lingering() -> None:
        """Is still cleaning up when the pool closes."""
        try:
            await function()  # type: ignore[misc]
        finally:
            await asyncio.sleep(60)

    async with alone() as one:
        run = one.put(lingering if stopped_before else function)
        await turns()
        if stopped_before:
            one.pool.stop(run, Outcome.RELEASED)
            await turns()
    # alone() fails when the pool doesn't close


async def test_a_pool_closes_beside_a_thread_that_was_stopped() -> None:
    bar = threading.Event()

    async with alone() as one:
        run = one.put(lambda: bar.wait(5))
        await asyncio.sleep(0.01)
        one.pool.stop(run, Outcome.RELEASED)
    bar.set()
