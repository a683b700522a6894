"""Waiting for what is measured to be over, looking as seldom as exactness allows."""

import asyncio
import time

from tests.bench.figures import BenchError
from tests.bench.stage import Stage

_STUCK_S = 30.0
_LOOK_S = 0.1
_SHORTEST_S, _LONGEST_S = 0.02, 0.5
_FOLD_S = 6.0  # the server tidies its counts every 5 s


async def all_succeeded(
    stage: Stage, queue: str, count: int, first_look_s: float = _LOOK_S
) -> None:
    """Returns when the queue's `count` jobs, and no others, have succeeded.

    A look costs PostgreSQL a count of what waits, so each one is half-way to the expected end:
    few in the middle, and close ones at the end.
    """
    done, at, pause_s = 0, time.perf_counter(), first_look_s
    while True:
        await asyncio.sleep(pause_s)
        counts = (await stage.client.call("GET", f"/v1/queues/{queue}"))["counts"]
        now = time.perf_counter()
        if counts["succeeded"] >= count:
            break
        if counts["succeeded"] > done:
            per_s = (counts["succeeded"] - done) / (now - at)
            left_s = (count - counts["succeeded"]) / per_s
            pause_s = min(max(left_s / 2, _SHORTEST_S), _LONGEST_S)
            done, at = counts["succeeded"], now
        elif now - at > first_look_s + _STUCK_S:
            raise BenchError(f"{queue} is stuck at {counts}")
    others = {state: n for state, n in counts.items() if n and state != "succeeded"}
    if others or counts["succeeded"] != count:
        raise BenchError(f"{queue} had {count} jobs, but has {counts}")


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
