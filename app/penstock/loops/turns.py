"""Whose turn it is to do what one replica of all does, and what metrics say of that.

Always holds: `penstock_leader` is 1 only while the last asking was answered with yes: where the
lock's server doesn't answer, nobody is told to lead.
"""

from collections.abc import Awaitable, Callable

from penstock.telemetry.metrics import Metrics

Lock = Callable[[str, float], Awaitable[bool]]  # a task's name and for how long, in seconds


async def is_ours(lock: Lock, task: str, ttl_s: float, metrics: Metrics) -> bool:
    """Whether it is. Raises what `lock` does."""
    ours = False
    try:
        ours = await lock(task, ttl_s)
    finally:
        metrics.leader(task).set(ours)
    return ours
