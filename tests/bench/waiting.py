"""Waiting for what is measured to be over."""

import asyncio
import time

from tests.bench.figures import BenchError
from tests.bench.stage import Stage

_STUCK_S = 90.0  # the server counts a twentieth of the time: a count of 3 s is told for 60
_LOOK_S = 0.25
_FOLD_S = 6.0  # the server tidies its counts every 5 s


async def all_succeeded(stage: Stage, queue: str, count: int) -> None:
    """Returns when the queue's `count` jobs, and no others, have succeeded.

    The server counts at most once a second, so this tells that the end has come, not when.
    """
    done, changed_at = -1, time.perf_counter()
    while True:
        counts = (await stage.client.call("GET", f"/v1/queues/{queue}"))["counts"]
        others = {state: n for state, n in counts.items() if n and state != "succeeded"}
        if counts["succeeded"] == count and not others:
            return
        now = time.perf_counter()
        if counts["succeeded"] > done:
            done, changed_at = counts["succeeded"], now
        if counts["succeeded"] > count or "dead" in others or now > changed_at + _STUCK_S:
            raise BenchError(f"{queue} got {count} jobs, but doesn't get beyond {counts}")
        await asyncio.sleep(_LOOK_S)


async def quiet(stage: Stage, within_s: float) -> None:
    """Returns when the last job is a minute ago and autovacuum rests, or when time is up.

    For a minute the server keeps what it needs for the queues' throughput, then it folds that.
    """
    until = time.perf_counter() + within_s
    while time.perf_counter() < until:
        await asyncio.sleep(_FOLD_S)
        queues = (await stage.client.call("GET", "/v1/queues"))["items"]
        is_done = not any(queue["throughput"]["succeeded_per_s"] for queue in queues)
        if is_done and not await stage.ledger.is_vacuuming():
            await asyncio.sleep(_FOLD_S)
            return
