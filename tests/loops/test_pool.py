"""The pool: whatever a handler does, its run ends once and its slot comes back."""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from penstock.domain.attempt import Outcome
from penstock.handlers.errors import PermanentError
from penstock.loops.pool import Run
from tests.loops.pools import Alone, alone, turns
from tests.support.heap import heap_of_a_server

Handler = Callable[[], Awaitable[object]]


async def echo(payload: object) -> object:
    return payload


async def forever() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise ValueError("as asked")


async def exiting() -> None:
    raise SystemExit(3)


async def interrupted() -> None:
    raise KeyboardInterrupt


async def leaking() -> None:
    """Lets the cancellation of a task of its own out."""
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    await inner


async def cancelling_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def cancelling_itself_too_late() -> int:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return 1


async def giving_up_within() -> int:
    """Uses a time-out of its own, which counts cancellations."""
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)
    except TimeoutError:
        return 1
    return 0


async def failing_in_a_group() -> None:
    """A TaskGroup counts its task's cancellations, too."""
    async with asyncio.TaskGroup() as group:
        group.create_task(failing())
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("function", "outcome", "told"),
    [
        (echo, Outcome.SUCCEEDED, None),
        (giving_up_within, Outcome.SUCCEEDED, None),
        (failing, Outcome.FAILED, "ValueError"),
        (failing_in_a_group, Outcome.FAILED, "ExceptionGroup"),
        (exiting, Outcome.FAILED, "SystemExit"),
        (interrupted, Outcome.FAILED, "KeyboardInterrupt"),
        (leaking, Outcome.FAILED, "asyncio.exceptions.CancelledError"),
        (cancelling_itself, Outcome.FAILED, "asyncio.exceptions.CancelledError"),
        (cancelling_itself_too_late, Outcome.SUCCEEDED, None),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
async def test_a_run_ends_as_its_handler_does_and_the_next_one_is_not_touched(
    function: Handler, outcome: Outcome, told: str | None
) -> None:
    async with alone() as one:
        for _ in range(2):
            ending = await one.result(function)
            assert (ending.outcome, ending.failure and ending.failure.type) == (outcome, told)
            assert one.coroutines.free == 1
            await assert_sound(one)


async def assert_sound(one: Alone) -> None:
    """The pool's only coroutine is as new: nothing of the last handler reaches the next."""
    assert (await one.result(echo, payload='{"a":1}')).result == '{"a":1}'
    assert (await one.result(giving_up_within)).result == "1"
    failure = (await one.result(failing_in_a_group)).failure
    assert failure is not None
    assert failure.type == "ExceptionGroup"


async def test_a_payload_that_does_not_fit_fails_for_good() -> None:
    async def strict(payload: int) -> int:
        return payload

    async with alone() as one:
        ending = await one.result(strict, payload='"no number"')
        assert (ending.outcome, ending.retryable) == (Outcome.FAILED, False)
        assert (await one.result(strict, payload="7")).result == "7"


async def test_a_result_that_is_too_large_fails_for_good() -> None:
    async with alone() as one:
        ending = await one.result(echo, payload='"' + "x" * 2000 + '"')
        assert ending.failure is not None
        assert (ending.failure.type, ending.retryable) == ("result-too-large", False)


# Plain functions: each runs in a thread.


def answering() -> int:
    return threading.get_ident()


def stopping_iteration() -> None:
    raise StopIteration(7)


def raising() -> None:
    raise PermanentError("never", "no")


def exiting_in_thread() -> None:
    raise SystemExit


def cancelled_in_thread() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("function", "told", "retryable"),
    [
        (stopping_iteration, "StopIteration", True),
        (raising, "no", False),
        (exiting_in_thread, "SystemExit", True),
        (cancelled_in_thread, "asyncio.exceptions.CancelledError", True),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
async def test_a_plain_function_may_raise_anything(
    function: Callable[[], None], told: str, retryable: bool
) -> None:
    async with alone() as one:
        ending = await one.result(function)
        assert ending.failure is not None
        assert (ending.failure.type, ending.retryable) == (told, retryable)
        assert one.threads.free == 1
        assert (await one.result(answering)).outcome is Outcome.SUCCEEDED


async def test_a_plain_function_runs_beside_the_event_loop() -> None:
    async with alone(threads=2) as one:
        both = threading.Barrier(2, timeout=5)

        def meeting() -> bool:
            both.wait()
            return threading.current_thread() is threading.main_thread()

        endings = [await one.ending(run) for run in (one.put(meeting), one.put(meeting))]
        assert [ending.result for ending in endings] == ["false", "false"]


# Slots.


async def test_free_counts_what_waits_runs_and_is_reserved() -> None:
    gate = asyncio.Event()

    async def gated() -> None:
        await gate.wait()

    async with alone(slots=3) as one:
        lane = one.coroutines
        assert lane.free == 3
        lane.reserved = 2
        assert lane.free == 1
        lane.reserved = 0
        runs = [one.put(gated) for _ in range(4)]
        assert lane.free == -1, "adopted runs may be more than slots"
        await turns()
        assert (lane.free, len(lane.waiting), len(lane.running)) == (-1, 1, 3)
        assert one.pool.busy()
        assert all(one.pool.find(run.job.id) is run for run in runs)
        gate.set()
        await one.ending(runs[-1])
        assert (lane.free, one.times_freed) == (3, 4)
        assert one.pool.busy() == []
        assert not any(one.pool.find(run.job.id) for run in runs)


async def test_the_line_of_a_lane_is_kept() -> None:
    began: list[int] = []

    async def noting(payload: int) -> None:
        began.append(payload)
        await asyncio.sleep(0)

    async with alone(slots=2) as one:
        runs = [one.run_of(noting, payload=str(n)) for n in range(20)]
        one.pool.put(runs)
        for run in runs:
            await one.ending(run)
        assert began == list(range(20))


class Crowd:
    """Handlers of all sorts, counted from within, and a watcher who compares at every turn."""

    def __init__(self, one: Alone, rand: random.Random) -> None:
        self._one = one
        self._rand = rand
        self.inside = 0
        self.begun: set[int] = set()

    def function(self, number: int) -> Handler:
        nap = self._rand.choice([None, 0.0, 0.001, 0.005, 0.02])
        ends = self._rand.choice(["returns", "raises", "swallows", "leaks", "clings"])

        async def handler() -> object:
            self.inside += 1
            self.begun.add(number)
            try:
                return await self._live(nap, ends)
            finally:
                self.inside -= 1

        return handler

    async def _live(self, nap: float | None, ends: str) -> object:
        try:
            if nap is not None:
                await asyncio.sleep(nap)
        except asyncio.CancelledError:
            if ends == "clings":
                await asyncio.sleep(0.08)  # longer than the grace
            if ends in ("swallows", "clings"):
                return "swallowed"
            raise
        if ends == "raises":
            raise ValueError
        if ends == "leaks":
            await leaking()
        return None

    def compare(self) -> None:
        lane = self._one.coroutines
        assert len(lane.running) == self.inside, "a slot is taken for as long as its handler is"
        assert lane.free == lane.slots - self.inside - len(lane.waiting)


async def test_a_storm_of_all_sorts_loses_no_run_and_no_slot() -> None:
    rand = random.Random(7)
    async with alone(slots=8, cancel_grace_s=0.03) as one:
        crowd = Crowd(one, rand)
        runs: list[Run] = []
        for number in range(600):
            runs.append(one.put(crowd.function(number), timeout_s=rand.choice([0.01, 60, 60])))
            if rand.random() < 0.3:
                why = rand.choice([Outcome.CANCELLED, Outcome.RELEASED, Outcome.LOST])
                one.pool.stop(rand.choice(runs), why)
            if rand.random() < 0.1:
                await one.pool.check_deadlines()
            await asyncio.sleep(rand.choice([0, 0, 0, 0.001]))
            crowd.compare()
        while len(one.endings) < len(runs) or crowd.inside:
            await one.pool.check_deadlines()
            await asyncio.sleep(0.002)
            crowd.compare()
        assert [one.times_ended[run] for run in runs] == [1] * len(runs)
        assert one.coroutines.free == 8
        assert one.pool.leaked() == 0
        assert {ending.outcome for ending in one.endings.values()} == set(Outcome) - {
            Outcome.CRASHED
        }
        never = [n for n, run in enumerate(runs) if n not in crowd.begun]
        assert all(runs[n].stop is not None for n in never), "only what was stopped never began"
        await assert_sound(one)


@pytest.mark.parametrize(("count", "each_s"), [(50_000, 0.0), (500, 0.0003)])
async def test_a_storm_lets_others_run(count: int, each_s: float) -> None:
    """No-ops, far more at once than a worker ever puts; and a whole claim of short ones."""

    async def short() -> None:
        ends_at = time.thread_time() + each_s
        while each_s and time.thread_time() < ends_at:
            pass

    with heap_of_a_server():
        longest = await longest_turn(count, short)
    assert longest < 0.02, f"nobody else ran for {longest * 1000:.0f} ms"


async def longest_turn(count: int, short: Handler) -> float:
    """Seconds of our own processor time that nobody else had; what others do isn't counted."""
    async with alone(slots=500) as one:
        first = one.run_of(short)
        args = (first.job, first.handler, first.context, first.deadline, first.lane)
        one.pool.put([Run(*args) for _ in range(count)])
        longest, turned_at = 0.0, time.thread_time()
        while len(one.endings) < count:
            await asyncio.sleep(0)
            turned_at, before = time.thread_time(), turned_at
            longest = max(longest, turned_at - before)
    return longest
