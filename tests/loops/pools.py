"""A pool by itself: no servers, and handlers given as functions."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from penstock import clock
from penstock.domain.attempt import Ending
from penstock.egress.client import Egress
from penstock.handlers.calling import shaped
from penstock.handlers.context import Context, LogLimits, Services
from penstock.loops.pool import Lane, Pool, Run
from penstock.settings import Worker
from tests.support import making

Function = Callable[..., Any]

_SERVICES = Services(http=Egress())


class Alone:
    """One lane of coroutines and one of threads; keeps how each run ended, and how often."""

    def __init__(self, slots: int, threads: int, cancel_grace_s: float) -> None:
        self.coroutines = Lane("async", ("any",), slots)
        self.threads = Lane("threads", ("any",), threads)
        self.endings: dict[Run, Ending] = {}
        self.times_ended: Counter[Run] = Counter()
        self.times_freed = 0
        self.on_free: Callable[[], None] = lambda: None
        self.executor = ThreadPoolExecutor(threads)
        self._wanted: dict[Run, asyncio.Future[None]] = {}
        settings = Worker(cancel_grace_s=cancel_grace_s, result_max_bytes=1024)
        lanes = [self.coroutines, self.threads]
        self.pool = Pool(lanes, self.executor, settings, self._hear_end, self._hear_free)

    def run_of(self, function: Function, *, timeout_s: float = 60.0, payload: str = "null") -> Run:
        handler = shaped("any", function, __name__)
        job = making.started(kind="any", timeout_s=timeout_s, payload=payload)
        deadline = clock.monotonic() + timeout_s
        lane = self.coroutines if handler.is_async else self.threads
        return Run(job, handler, Context(job, deadline, _SERVICES, LogLimits()), deadline, lane)

    def put(self, function: Function, **fields: Any) -> Run:
        run = self.run_of(function, **fields)
        self.pool.put([run])
        return run

    async def ending(self, run: Run, within_s: float = 5.0) -> Ending:
        """How it ended, once it has."""
        if run not in self.endings:
            self._wanted[run] = asyncio.get_running_loop().create_future()
            await asyncio.wait_for(self._wanted[run], within_s)
        return self.endings[run]

    async def result(self, function: Function, **fields: Any) -> Ending:
        """Puts it and waits for its end."""
        return await self.ending(self.put(function, **fields))

    def _hear_end(self, run: Run, ending: Ending) -> None:
        self.times_ended[run] += 1
        self.endings.setdefault(run, ending)
        if wanted := self._wanted.pop(run, None):
            wanted.set_result(None)

    def _hear_free(self) -> None:
        self.times_freed += 1
        self.on_free()


@asynccontextmanager
async def alone(
    slots: int = 1, threads: int = 1, cancel_grace_s: float = 0.05
) -> AsyncIterator[Alone]:
    """A running pool; afterwards no run has ended twice and no coroutine of it has died."""
    one = Alone(slots, threads, cancel_grace_s)
    task = asyncio.create_task(one.pool.run())
    try:
        yield one
        await turns()
        assert max(one.times_ended.values(), default=0) <= 1, "a run has ended twice"
        alive = [t for t in asyncio.all_tasks() if t.get_name().startswith("pool:")]
        assert len(alive) == slots + threads, "a coroutine of the pool has died"
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        one.executor.shutdown(wait=False, cancel_futures=True)
    assert done, "the pool does not close"


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
