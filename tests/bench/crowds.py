"""More than can be done: twice the peak in an open loop, and a burst all at once.

Every accepted job is looked up in PostgreSQL by its id. The callers share the machine's cores with
all that is measured, and others may too: so the share of each is told, and the goodput for each
second of CPU that the server got, which tells what the server does where a core is its own.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.client import Link
from tests.bench.crowd import Outcome, Plan, crowd
from tests.bench.figures import BenchError, Figure, percentile
from tests.bench.stage import Stage
from tests.bench.usage import Cpu
from tests.bench.waiting import all_succeeded

PEAK_AT_ONCE = 128  # fewer make smaller commits, and a lower peak; more are refused now and then
CROWD_LINKS = 1500
BURST_LINKS = 200
PEAK_S = 8.0
FACTOR = 2.0
_PROBE_S = 0.02


@dataclass(slots=True)
class Looks:
    """What was seen of the server meanwhile."""

    livez_ms: list[float] = field(default_factory=list)
    readyz_ms: list[float] = field(default_factory=list)
    server_mib: list[float] = field(default_factory=list)
    is_over: bool = False  # tasks look at this: a cancelled `wait_for` may go on (Python 3.11)


@dataclass(frozen=True, slots=True)
class Run:
    """`cpu`: while the crowd was there; `server_s`: the server's until all jobs had run too."""

    out: Outcome
    cpu: Cpu
    server_s: float
    looks: Looks
    left: int  # jobs that hadn't run when the crowd left
    answered_at: float  # the time of that, in seconds since 1970

    @property
    def per_cpu_s(self) -> float:
        """Accepted requests for each second of the server's CPU."""
        return len(self.out.accepted_s) / self.server_s


async def overload(stage: Stage, measure: str, seconds: float, batch: int) -> list[Figure]:
    """First the peak in a closed loop, then twice that at random instants."""
    queue = f"bench-over-{batch}"
    rest = stage.usage.server_mib()
    peak_s = min(PEAK_S, seconds)
    crowded = {"links": CROWD_LINKS, "batch": batch}
    peak = await _crowd(
        stage, _plan(stage, queue=queue, at_once=PEAK_AT_ONCE, seconds=peak_s, **crowded)
    )
    peak_rate = len(peak.out.accepted_s) / peak.out.wall_s
    plan = _plan(stage, queue=f"{queue}-x", per_s=peak_rate * FACTOR, seconds=seconds, **crowded)
    over = await _crowd(stage, plan)
    out, looks = over.out, over.looks
    rate = len(out.accepted_s) / (out.wall_s + out.overtime_s)

    def of(name: str, value: float, unit: str) -> Figure:
        return Figure(measure, name, value, unit)

    return [
        of("peak", peak_rate * batch, "jobs/s"),
        of("offered", (out.asked + out.unsent) / plan.seconds * batch, "jobs/s"),
        of("goodput", rate * batch, "jobs/s"),
        of("goodput of peak", rate / peak_rate * 100, "%"),
        of("goodput of peak, per CPU of the server", over.per_cpu_s / peak.per_cpu_s * 100, "%"),
        *_costs(of, peak, over),
        of("refused", len(out.refused_s) / out.asked * 100, "%"),
        of("not sent for want of a link", out.unsent, "requests"),
        *_spread(of, "accepted", out.accepted_s),
        *_spread(of, "refused", out.refused_s),
        of("/livez, p99", percentile(looks.livez_ms, 99), "ms"),
        of("/readyz, p99", percentile(looks.readyz_ms, 99), "ms"),
        of("server at rest", rest, "MiB"),
        of("server, most", max(looks.server_mib), "MiB"),
        *_shares(of, "at the peak", peak),
        *_shares(of, "at twice the peak", over),
    ]


async def burst(stage: Stage, measure: str, jobs: int, batch: int) -> list[Figure]:
    """So many jobs as fast as they are taken; who is refused comes again a second later."""
    queue = f"bench-burst-{batch}"
    links = min(BURST_LINKS, jobs // batch)
    plan = _plan(stage, queue=queue, links=links, batch=batch, jobs=jobs)
    run = await _crowd(stage, plan)
    out, looks = run.out, run.looks
    drain_s = max(await stage.ledger.finished_at(queue) - run.answered_at, 0.001)

    def of(name: str, value: float, unit: str) -> Figure:
        return Figure(measure, name, value, unit)

    return [
        of("rate", jobs / out.wall_s, "jobs/s"),
        of("refused requests", len(out.refused_s), "requests"),
        *_spread(of, "accepted", out.accepted_s),
        of("server, most", max(looks.server_mib), "MiB"),
        of("/livez, p99", percentile(looks.livez_ms, 99), "ms"),
        of("left when all were accepted", run.left, "jobs"),
        of("drained in", drain_s, "s"),
        of("drain rate", run.left / drain_s, "jobs/s"),
    ]


def _plan(stage: Stage, **plan: Any) -> Plan:
    return Plan(url=stage.client.url, bearer=stage.client.bearer, **plan)


async def _crowd(stage: Stage, plan: Plan) -> Run:
    with tempfile.TemporaryDirectory(prefix="penstock-crowd-") as name:
        async with _looked_at(stage) as looks:
            before = stage.usage.cpu()
            out = await crowd(plan, Path(name))
            used, answered_at = stage.usage.cpu() - before, time.time()
    left = len(out.ids) - await stage.ledger.succeeded(plan.queue)
    await _settled(stage, plan.queue, out.ids)
    server_s = (stage.usage.cpu() - before).server
    return Run(out, used, server_s, looks, left, answered_at)


@asynccontextmanager
async def _looked_at(stage: Stage) -> AsyncIterator[Looks]:
    looks = Looks()
    async with stage.client.links(2) as links, asyncio.TaskGroup() as group:
        group.create_task(_probe(stage, looks, links[0], "/livez"))
        group.create_task(_probe(stage, looks, links[1], "/readyz"))
        group.create_task(_weigh(stage, looks))
        try:
            yield looks
        finally:
            looks.is_over = True


async def _probe(stage: Stage, looks: Looks, link: Link, path: str) -> None:
    times_ms = looks.livez_ms if path == "/livez" else looks.readyz_ms
    while not looks.is_over:
        began = time.perf_counter()
        status, body = await stage.client.ask(link, "GET", path)
        times_ms.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise BenchError(f"{path} answered {status}: {body[:300]!r}")
        await asyncio.sleep(_PROBE_S)


async def _weigh(stage: Stage, looks: Looks) -> None:
    while not looks.is_over:
        looks.server_mib.append(stage.usage.server_mib())
        await asyncio.sleep(0.1)


async def _settled(stage: Stage, queue: str, ids: Sequence[str]) -> None:
    """All that was accepted is there, and nothing else, and each ran once."""
    await all_succeeded(stage, queue, len(ids))
    await stage.ledger.started_once_each(queue, len(ids))
    if lost := await stage.ledger.missing(queue, ids):
        raise BenchError(f"{lost} of {len(ids)} accepted jobs are not in PostgreSQL")


Of = Callable[[str, float, str], Figure]


def _spread(of: Of, name: str, times_s: Sequence[float]) -> list[Figure]:
    return [
        of(f"{name}, p{percent}", percentile(times_s, percent) * 1000, "ms")
        for percent in (50, 99)
        if times_s
    ]


def _costs(of: Of, peak: Run, over: Run) -> list[Figure]:
    """Of the server's CPU, where an accepted request costs what it does at the peak."""
    accepted_s = 1 / peak.per_cpu_s
    refused_s = over.server_s - len(over.out.accepted_s) * accepted_s
    return [
        of("CPU of the server for an accepted request", accepted_s * 1e6, "us"),
        *(
            of("CPU of the server for a refusal", refused_s / count * 1e6, "us")
            for count in (len(over.out.refused_s),)
            if count
        ),
    ]


def _shares(of: Of, when: str, run: Run) -> list[Figure]:
    used = run.cpu
    shares = {
        "the server": used.server,
        "PostgreSQL": used.postgres,
        "Redis": used.redis,
        "the callers": run.out.cpu_s,
    }
    return [
        *(
            of(f"CPU of {name} {when}", seconds / used.wall * 100, "% of a core")
            for name, seconds in shares.items()
        ),
        of(f"CPU of others {when}", used.others_pct, "% of the machine"),
    ]
