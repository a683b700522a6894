"""Workflows of many shapes, one after the other on a replica that does nothing else.

Times are PostgreSQL's. A hop is from the end of a job's last parent to its own start: what the
engine takes to settle, unlock, enqueue, claim and start. Where many jobs are unlocked at once their
hops are mostly the time that the others before them take.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.figures import BenchError, Figure, percentile
from tests.bench.ledger import Hops
from tests.bench.shapes import SHAPES, Job
from tests.bench.stage import Stage

_LOOK_S = 0.1
_STUCK_S = 60.0
_JOIN_WIDTH = 1000  # "a fan-out of 1,000 and its join"
_HOPPING = ("chain", "diamond", "grid")  # whose hops are told


@dataclass(frozen=True, slots=True)
class Ran:
    """A workflow that was submitted in so many seconds and whose jobs have all succeeded."""

    submitted_s: float
    took_s: float  # from its first start to its end
    hops: Hops


async def measure(stage: Stage, sizes: Sequence[int], wide: int) -> list[Figure]:
    """All shapes in all sizes; `wide`: parents of a join whose settlements are looked at."""
    figures: list[Figure] = []
    found: dict[tuple[str, int], Ran] = {}
    for size in sizes:
        for shape, jobs in SHAPES.items():
            ran = found[shape, size] = await _ran(stage, f"{shape} {size}", jobs(size))
            figures += _figures(f"{shape} of {size:,}", shape, ran)
    slowest_s = max(found[shape, max(sizes)].submitted_s for shape in SHAPES)
    hop_ms = percentile(found["chain", min(sizes)].hops.ms, 50)
    return [
        *figures,
        *await _joins(stage, wide),
        Figure("workflows", "a hop of a chain, p50", hop_ms, "ms"),
        Figure("workflows", "the largest, sent to answered", slowest_s * 1000, "ms"),
    ]


def _figures(name: str, shape: str, ran: Ran) -> list[Figure]:
    figures = [
        Figure("workflows", f"{name}, sent to answered", ran.submitted_s * 1000, "ms"),
        Figure("workflows", f"{name}, first start to end", ran.took_s * 1000, "ms"),
    ]
    if shape in _HOPPING:
        figures += [
            Figure("workflows", f"{name}, a hop, p{p}", percentile(ran.hops.ms, p), "ms")
            for p in (50, 99)
        ]
    return figures


async def _joins(stage: Stage, wide: int) -> list[Figure]:
    """The asked fan-out with its join, and a wide join whose batches must be short."""
    ran = await _ran(stage, "join", SHAPES["diamond"](_JOIN_WIDTH + 2))
    figures = [
        Figure("workflows", "out to 1,000 and in again", ran.hops.root_to_last_ms, "ms"),
    ]
    before = await _batches(stage)
    await _ran(stage, "wide join", SHAPES["fan-in"](wide + 1))
    slowest_s = _slowest(before, await _batches(stage))
    figures.append(
        Figure("workflows", f"in from {wide:,}, slowest batch, at most", slowest_s * 1000, "ms")
    )
    return figures


async def _ran(stage: Stage, name: str, jobs: Sequence[Job]) -> Ran:
    request = stage.client.request("POST", "/v1/workflows", {"name": name, "jobs": list(jobs)})
    async with stage.client.links(1) as [link]:
        began = time.perf_counter()
        status, body = await stage.client.send(link, request)
        submitted_s = time.perf_counter() - began
    if status != 201:
        raise BenchError(f"{name}: answered {status}: {body[:500]!r}")
    id_ = await stage.ledger.newest_workflow()
    await _succeeded(stage, id_, len(jobs))
    return Ran(submitted_s, await stage.ledger.workflow_took_s(id_), await stage.ledger.hops(id_))


async def _succeeded(stage: Stage, id_: str, count: int) -> None:
    """Returns when all of its jobs have, in one attempt each, and it says so itself."""
    done, changed_at = -1, time.perf_counter()
    while True:
        state, succeeded, attempts = await stage.ledger.workflow(id_)
        if (state, succeeded, attempts) == ("succeeded", count, count):
            return
        now = time.perf_counter()
        if succeeded > done:
            done, changed_at = succeeded, now
        if state != "running" or now > changed_at + _STUCK_S:
            raise BenchError(f"{id_} is {state}: {succeeded} of {count}, {attempts} attempts")
        await asyncio.sleep(_LOOK_S)


async def _batches(stage: Stage) -> dict[float, float]:
    """How many settlements took at most so many seconds, by the server's histogram."""
    text = await stage.client.text("/metrics")
    head = 'penstock_batch_seconds_bucket{batch="settle",le="'
    lines = [line.removeprefix(head) for line in text.splitlines() if line.startswith(head)]
    pairs = [line.split('"} ') for line in lines]
    return {float(bound): float(count) for bound, count in pairs}


def _slowest(before: dict[float, float], after: dict[float, float]) -> float:
    """The least bound under which all batches were that came since."""
    came = {bound: after[bound] - before.get(bound, 0) for bound in after}
    return min(bound for bound, count in came.items() if count == max(came.values()))
