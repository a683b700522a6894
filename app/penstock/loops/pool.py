"""The bounded pool of coroutines that run jobs, with deadlines, cancellation and slots.

In: started attempts. Out: `on_ended(run, ending)`, exactly once a run. A slot is free when its
handler has returned. If we die here, the running rows stay under our name and the reaper finds
them. Plain functions share the pool: their coroutine waits for a thread, which nobody can stop.
Tasks that a handler left behind are not ours: they live on, and nobody waits for them.
"""

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from penstock import clock
from penstock.domain.attempt import Ending, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.handlers.context import Context
from penstock.handlers.errors import failure_of
from penstock.handlers.registry import Handler
from penstock.loops import traced
from penstock.loops.children import Child, Children
from penstock.loops.run import run_handler, stop_ending
from penstock.settings import Worker as WorkerSettings
from penstock.store.jobs import LogRow, ProgressRow
from penstock.telemetry import scope, tracing
from penstock.telemetry.logs import tell_of_handler

_TURN_S = 0.005  # for so long runs are begun before others on the event loop have their turn
_CHECK_MAX_S = 1.0
_CHECK_MIN_S = 0.01


@dataclass(slots=True, eq=False)
class Run:
    """One attempt in this replica, from its start until it is settled."""

    job: Started
    handler: Handler
    context: Context
    deadline: float  # monotonic
    lane: "Lane"
    child: Child | None = None  # it runs in a process of its own
    task: asyncio.Task[Any] | None = None
    stop: Outcome | None = None  # why its handler was told to stop
    stopped_at: float = 0.0
    ended: bool = False
    leaked: bool = False  # it was told to stop and didn't: settled without it, slot still taken

    def ran_s(self) -> float | None:
        """For how long it has run until now; None: it has not begun."""
        if self.deadline == math.inf:
            return None
        return clock.monotonic() - self.deadline + self.job.timeout_s

    def log_rows(self) -> list[LogRow]:
        """The lines that the handler has logged since the last call."""
        job = self.job
        lines = self.context.take_logs()
        for line in lines:
            tell_of_handler(self.context, line.level, line.message)
        return [
            (job.id, job.attempt, line.seq, line.at_s, line.level, line.message) for line in lines
        ]

    def progress_row(self) -> ProgressRow | None:
        """How far the handler has come, if it said so since the last call."""
        told = self.context.take_progress()
        if told is None:
            return None
        return (self.job.id, self.job.attempt, told.percent, told.message, told.at_s)


@dataclass(slots=True, eq=False)
class Lane:
    """Slots for one sort of handler: coroutines, threads, or child processes (of any kind, so that
    nothing is claimed for them)."""

    name: str
    kinds: Sequence[str]
    slots: int
    children: Children | None = None
    reserved: int = 0  # claimed, not yet started
    waiting: deque[Run] = field(default_factory=deque)
    running: set[Run] = field(default_factory=set)
    idle: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.slots - self.reserved - len(self.waiting) - len(self.running)


class Pool:
    """`on_ended` is called once a run; `on_free` whenever a slot got free."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        threads: ThreadPoolExecutor,
        settings: WorkerSettings,
        on_ended: Callable[[Run, Ending], None],
        on_free: Callable[[], None],
    ) -> None:
        self.lanes = lanes
        self.checked = asyncio.Event()  # set: a deadline is nearer than the next check
        self._threads = threads
        self._cancel_grace_s = settings.cancel_grace_s
        self._result_max_bytes = settings.result_max_bytes
        self._on_ended = on_ended
        self._on_free = on_free
        self._next_check = 0.0
        self._by_id: dict[JobId, Run] = {}
        self._group: asyncio.TaskGroup
        self._owner: asyncio.Task[Any] | None = None
        self._turn_ends = 0.0  # 0: nothing was begun in this turn of the event loop

    async def run(self) -> None:
        """Runs the pool's coroutines until cancelled."""
        self._owner = asyncio.current_task()
        async with asyncio.TaskGroup() as self._group:
            for lane in self.lanes:
                for _ in range(lane.slots):
                    self._employ(lane)

    def put(self, runs: Iterable[Run]) -> None:
        for run in runs:
            children = run.lane.children
            if children and (ending := children.overflow(len(run.lane.waiting))):
                self._end(run, ending)
                continue
            run.lane.waiting.append(run)
            self._by_id[run.job.id] = run
            if run.deadline < self._next_check:
                self.checked.set()
        for lane in self.lanes:
            _wake_one(lane)

    def busy(self) -> list[Run]:
        """All runs that hold a slot and have not ended."""
        return [r for lane in self.lanes for r in (*lane.running, *lane.waiting) if not r.ended]

    def leaked(self) -> int:
        return sum(run.leaked for lane in self.lanes for run in lane.running)

    def leakiest(self) -> tuple[Lane, int, float] | None:
        """The lane that has lost most of its slots to handlers that ignore their end: how many, and
        the percentage."""
        found = [
            (lane, leaked, 100 * leaked / lane.slots)
            for lane in self.lanes
            if (leaked := sum(run.leaked for run in lane.running))
        ]
        return max(found, key=lambda one: one[2], default=None)

    def find(self, id_: JobId) -> Run | None:
        return self._by_id.get(id_)

    def stop(self, run: Run, why: Outcome) -> None:
        """Tells a handler to stop. The first reason stands; one that waits ends at once."""
        if run.stop is not None or run.ended:
            return
        run.stop, run.stopped_at = why, clock.monotonic()
        run.context.cancel(why.value)
        if run in run.lane.waiting:
            run.lane.waiting.remove(run)
            self._end(run, stopped(run))
        elif run.child is not None:
            run.child.stop(why.value)
        elif run.task is not None and run.handler.is_async:
            run.task.cancel()
        self.checked.set()

    def give_up(self, run: Run) -> None:
        """On a handler that ignores its end: a process is killed, all else leaks its slot."""
        if run.child is not None:
            run.child.kill()
            return
        run.leaked = True
        self._end(run, stopped(run))

    async def check_deadlines(self) -> float:
        """One step of the loop that enforces deadlines; the pause until the next."""
        now = clock.monotonic()
        nearest = now + _CHECK_MAX_S
        for run in self.busy():
            if run.stop is None and run.deadline <= now:
                self.stop(run, Outcome.TIMED_OUT)
            if run.stop is None:
                nearest = min(nearest, run.deadline)
            elif now >= run.stopped_at + self._cancel_grace_s:
                self.give_up(run)
            else:
                nearest = min(nearest, run.stopped_at + self._cancel_grace_s)
        self._next_check = nearest
        self.checked.clear()
        return max(nearest - now, _CHECK_MIN_S)

    def _employ(self, lane: Lane) -> None:
        """Adds a coroutine to the pool, with no context variable set."""
        self._group.create_task(
            self._worker(lane), name=f"pool:{lane.name}", context=contextvars.Context()
        )

    async def _worker(self, lane: Lane) -> None:
        """One coroutine of the pool. It ends with the first cancellation that it meets, heeded or
        swallowed by a handler, and with the first context variable that a handler left set, so
        that neither can reach the next run; another takes its place."""
        try:
            await self._serve(lane)
        except asyncio.CancelledError:
            if self._is_closing():
                raise
        if not self._is_closing():
            self._employ(lane)

    async def _serve(self, lane: Lane) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling() and not contextvars.copy_context():
            if not lane.waiting:
                idle = asyncio.get_running_loop().create_future()
                lane.idle.append(idle)
                await idle
            elif self._turn_is_over():
                await asyncio.sleep(0)
            else:
                run = lane.waiting.popleft()
                lane.running.add(run)
                _wake_one(lane)
                await self._execute(run, task)

    def _turn_is_over(self) -> bool:
        """Whether the pool has had its share of this turn of the event loop."""
        now = clock.monotonic()
        if not self._turn_ends:
            self._turn_ends = now + _TURN_S
            asyncio.get_running_loop().call_soon(self._begin_turn)
        return now > self._turn_ends

    def _begin_turn(self) -> None:
        self._turn_ends = 0.0

    async def _execute(self, run: Run, task: asyncio.Task[Any]) -> None:
        run.task = task
        about = scope.enter(run.context)
        span = traced.begun(run.context) if tracing.is_on() else None
        ending: Ending | None = None
        try:
            ending = await self._ending(run)
        except asyncio.CancelledError as error:
            if run.stop is not None:
                ending = stopped(run)
            elif self._is_closing():
                raise
            else:
                ending = failure_of(error)  # the handler let one of its own tasks' out
        finally:
            run.task = None
            run.lane.running.discard(run)
            scope.leave(about)
            if ending is not None and _overrules(run.stop, ending):
                ending = stopped(run)
            if span is not None:
                traced.ended(span, ending)
        self._end(run, ending)

    async def _ending(self, run: Run) -> Ending:
        if run.child is None or run.lane.children is None:
            return await run_handler(
                run.handler, run.context, self._threads, self._result_max_bytes
            )
        return await run.lane.children.run(run.child, lambda: self._begin_late(run))

    def _begin_late(self, run: Run) -> None:
        """Its handler begins only now: neither the wait for a place nor the start counts."""
        run.deadline = clock.monotonic() + run.job.timeout_s
        self.checked.set()

    def _is_closing(self) -> bool:
        return self._owner is not None and self._owner.cancelling() > 0

    def _end(self, run: Run, ending: Ending) -> None:
        if not run.ended:
            run.ended = True
            if self._by_id.get(run.job.id) is run:
                del self._by_id[run.job.id]
            self._on_ended(run, ending)
        self._on_free()


def stopped(run: Run) -> Ending:
    """The ending of a run whose handler was told to stop."""
    assert run.stop is not None
    return stop_ending(run.stop, run.job.timeout_s)


def _overrules(stop: Outcome | None, ending: Ending) -> bool:
    """Success stands though a cancel was asked for; after its deadline an attempt has timed out."""
    if stop is None:
        return False
    return stop is Outcome.TIMED_OUT or ending.outcome is not Outcome.SUCCEEDED


def _wake_one(lane: Lane) -> None:
    """One is enough: whoever takes a run wakes the next if more are waiting."""
    while lane.waiting and lane.idle:
        idle = lane.idle.pop()
        if not idle.done():
            idle.set_result(None)
            return
