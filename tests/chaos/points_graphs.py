"""Workflows for the chaos points: a stream of small ones, and what makes happen what few do."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.chaos.points_table import Slot, any_job
from tests.support import graph_mix
from tests.support.load import Job, Load, Request

_CHILDREN = 1100  # more than one step tells
_JOBS_MAX = 8
_DIES = 0.1

Offer = Callable[[Slot, Request], Awaitable[list[str]]]
Change = Callable[..., Awaitable[None]]  # slot, verb, id of a job (else the latest workflow)


def stream_of(slot: Slot, load: Load, made: Counter[str]) -> Callable[[int], Awaitable[object]]:
    """Sends workflows to a slot's replica."""

    async def send(number: int) -> None:
        point = slot.point
        graph = some_workflow(random.Random(f"{point}/{number}"), point)
        made[point] += counted(graph)
        await load.submit(slot.replica.url, graph)

    return send


def some_workflow(chance: random.Random, point: str) -> Request:
    """A small one, some of whose jobs die."""

    def job() -> Job:
        if chance.random() < _DIES:
            payload = {"seconds": 0, "failures": 1_000_000, "point": point}
            return {"kind": "logged", "queue": "a", "max_attempts": 1, "payload": payload}
        return any_job(chance, point)

    return graph_mix.workflow(chance, chance.randint(1, _JOBS_MAX), job)


def counted(graph: Request) -> int:
    """How many of its jobs name a point."""
    return sum("point" in job["payload"] for job in graph.jobs)


def provocations(offer: Offer, change: Change) -> dict[str, Callable[[Slot], Awaitable[object]]]:
    """Of the points that the stream doesn't pass."""

    async def tell_many(slot: Slot) -> None:
        """A root whose end skips more children than one step does."""
        child = _job(slot, depends_on=["a"], run_if="all_failed")
        children = [{**child, "name": f"c{number}"} for number in range(_CHILDREN)]
        await offer(slot, _graph(_job(slot, name="a", priority=9), *children))

    async def wait_and_cancel(slot: Slot) -> None:
        ids = await offer(slot, _pair(slot))
        for id_ in reversed(ids):  # the child first, which is blocked
            await change(slot, "cancel", id_)

    async def cancel(slot: Slot) -> None:
        if await offer(slot, _pair(slot)):
            await change(slot, "cancel")

    async def retry(slot: Slot) -> None:
        await cancel(slot)
        await change(slot, "retry")

    async def expire(slot: Slot) -> None:
        one = {**_job(slot, name="a"), "kind": "nobody", "ttl_s": 0.3}
        await offer(slot, _graph(*({**one, "name": f"n{number}"} for number in range(3))))

    async def nest(slot: Slot) -> None:
        inner = {"name": "inner", "jobs": [_job(slot, name="x")]}
        await offer(slot, _graph({"kind": "workflow", "name": "h", "payload": inner}))

    async def spawn(slot: Slot) -> None:
        payload = {"seconds": 0, "failures": 0, "count": 3}  # who spawns is no row of the table
        one = {"kind": "spawning", "queue": "a", "name": "s", "payload": payload}
        await offer(slot, _graph(one))

    return {
        **dict.fromkeys(("before_advance", "after_advance", "between_steps"), tell_many),
        "after_cancel_graph": wait_and_cancel,
        "after_cancel_workflow": cancel,
        "after_retry_workflow": retry,
        "after_expire_graph": expire,
        **dict.fromkeys(("before_nest", "after_nest"), nest),
        **dict.fromkeys(("before_children", "after_children"), spawn),
    }


def _graph(*jobs: Job) -> Request:
    return Request(jobs, is_batch=True, workflow={"name": "provoked"})


def _pair(slot: Slot) -> Request:
    """A job that is to come, and its child."""
    first = _job(slot, name="a", delay_s=3)
    return _graph(first, _job(slot, name="b", depends_on=["a"]))


def _job(slot: Slot, **fields: Any) -> Job:
    return {"kind": "logged", "queue": "a", "payload": {"point": slot.point}, **fields}
