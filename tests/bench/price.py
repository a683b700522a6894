"""What it costs to be seen: the same jobs drained with all of it off, with all on, and by turns.

Each turn is a server process of its own, on the same PostgreSQL and Redis. A round is a turn of
each way; every other round goes backwards, so what changes with time strikes all alike. What a way
costs is told by round, against the `off` beside it: the median, and from the least to the most.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from tests.bench import machine
from tests.bench.client import Client, Flood
from tests.bench.figures import BenchError, Figure
from tests.bench.measures import BULK_LINKS, Scale, batches, warm_up
from tests.bench.stage import ENVIRON, Servers, Stage, serving
from tests.bench.usage import Cpu, Usage
from tests.bench.waiting import all_succeeded
from tests.support.collector import Collector, collector

_LOOK_S = 0.1
_SCRAPE_S = 1.0

OFF, ON, ALL_SPANS = "off", "on", "on, every span"
_QUIET = {"PENSTOCK_LOG__LEVEL": "error", "PENSTOCK_AUDIT_LOG__SUBMISSIONS": "false"}
WAYS: dict[str, Mapping[str, str]] = {
    OFF: _QUIET,
    ON: {"PENSTOCK_TRACING__ENABLED": "true"},
    ALL_SPANS: {"PENSTOCK_TRACING__ENABLED": "true", "PENSTOCK_TRACING__SAMPLE_RATIO": "1"},
}
ABOUT = """\
off: log.level error, audit_log.submissions false, tracing.enabled false; metrics are counted all
     the same (they can't be turned off), but nobody asks for them
on:  /metrics scraped each second, JSON log into a file, audit log, tracing on as it comes
     (tracing.per_s), a collector that takes OTLP/HTTP in this client's process
on, every span: the same with tracing.sample_ratio 1; what finds no room is dropped
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """How one way did: jobs a second, CPU meanwhile, the attempts' spans that a collector got."""

    rate: float
    used: Cpu
    spans: int


@dataclass(slots=True)
class _Meter:
    """CPU, read again and again, since only afterwards PostgreSQL tells when the last job ended."""

    usage: Usage
    read: list[tuple[float, Cpu]] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def run() -> None:
            while True:
                await asyncio.sleep(_LOOK_S)
                self._look()

        self._look()
        async with _meanwhile(run()):
            yield
        self._look()

    def _look(self) -> None:
        self.read.append((time.time(), self.usage.cpu()))

    def between(self, since: float, until: float) -> Cpu:
        """From the last reading before to the first one after."""
        began = [cpu for at, cpu in self.read if at <= since][-1]
        return next(cpu for at, cpu in self.read if at >= until) - began


async def measure(servers: Servers, scale: Scale) -> list[Figure]:
    """`scale.rounds` rounds of `scale.price_jobs` jobs for each way."""
    click.echo(ABOUT, err=True)
    figures: list[Figure] = []
    for number in range(scale.rounds):
        names = list(WAYS) if number % 2 == 0 else list(reversed(WAYS.keys()))
        turns: dict[str, Turn] = {}
        for name in names:
            click.echo(
                f"price: round {number + 1} of {scale.rounds}, {name} "
                f"(load {machine.load_average()})",
                err=True,
            )
            turns[name] = await _turn(servers, scale.price_jobs, WAYS[name])
        figures += _told(turns, scale.price_jobs)
    return figures


async def _turn(servers: Servers, jobs: int, way: Mapping[str, str]) -> Turn:
    """`bulk` and `drain` on a fresh server."""
    queue = f"price-{time.time_ns()}"
    async with collector() as taken:
        environ = {**ENVIRON, "PENSTOCK_TRACING__ENDPOINT": taken.url, **way}
        async with serving(servers, environ) as stage:
            await warm_up(stage, queue=f"{queue}-warm")
            await stage.client.call("POST", f"/v1/queues/{queue}/pause")
            async with stage.client.links(BULK_LINKS) as links:
                await Flood(links, batches(stage.client, queue, jobs)).done
            async with _scraped(stage.client, is_on=way is not _QUIET):
                rate, used = await _drained(stage, queue, jobs)
        spans = _attempts(taken, queue)  # the server has sent its last ones
    if bool(spans) == (way is _QUIET):
        raise BenchError(f"{spans} spans of attempts came in with {dict(way)}")
    return Turn(rate, used, spans)


async def _drained(stage: Stage, queue: str, jobs: int) -> tuple[float, Cpu]:
    meter = _Meter(stage.usage)
    async with meter.running():
        resumed_at = time.time()
        await stage.client.call("POST", f"/v1/queues/{queue}/resume")
        await all_succeeded(stage, queue, jobs)
    await stage.ledger.started_once_each(queue, jobs)
    ended_at = await stage.ledger.finished_at(queue)
    return jobs / (ended_at - resumed_at), meter.between(resumed_at, ended_at)


@asynccontextmanager
async def _scraped(client: Client, *, is_on: bool) -> AsyncIterator[None]:
    """As Prometheus does it, each second."""

    async def scrape() -> None:
        await asyncio.sleep(_SCRAPE_S / 2)  # so that a drain of 1.4 s is scraped once, not twice
        while True:
            text = await client.text("/metrics")
            if "penstock_" not in text:
                raise BenchError(f"/metrics answered {text[:200]!r}")
            await asyncio.sleep(_SCRAPE_S)

    if not is_on:
        yield
        return
    async with _meanwhile(scrape()):
        yield


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """It goes on until the end of the block, unless it fails."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _attempts(taken: Collector, queue: str) -> int:
    told = (span.attributes.get("messaging.destination.name") for span in taken.spans())
    return sum(one == queue for one in told)


def _told(turns: Mapping[str, Turn], jobs: int) -> list[Figure]:
    off = turns[OFF]
    return [figure for name, turn in turns.items() for figure in _of(name, turn, off, jobs)]


def _of(name: str, turn: Turn, off: Turn, jobs: int) -> list[Figure]:
    figures = [
        ("drain", turn.rate, "jobs/s"),
        ("CPU of the server", turn.used.server / jobs * 1e6, "µs/job"),
        ("CPU of PostgreSQL", turn.used.postgres / jobs * 1e6, "µs/job"),
    ]
    if turn is not off:
        figures += [
            ("attempts' spans", float(turn.spans), "spans"),
            ("drain lost", (1 - turn.rate / off.rate) * 100, "%"),
            ("CPU of the server more", _more(turn.used.server, off.used.server), "%"),
            ("CPU of PostgreSQL more", _more(turn.used.postgres, off.used.postgres), "%"),
        ]
    others = turn.used.others_pct
    return [
        Figure("price", f"{name}: {what}", value, unit, others) for what, value, unit in figures
    ]


def _more(used: float, off: float) -> float:
    return (used / off - 1) * 100 if off else math.nan
