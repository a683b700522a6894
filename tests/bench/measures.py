"""The measures: each drives a replica through its REST API and answers its figures.

Every measure has a queue of its own, and ends by checking that all of its jobs succeeded, started
once each. A measure that finds otherwise raises BenchError: a wrong result has no speed.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from tests.bench import crowds, listing
from tests.bench import workflows as of_workflows
from tests.bench.client import Answer, Client, Flood, OpenLoop
from tests.bench.figures import Figure, percentile
from tests.bench.ledger import Start
from tests.bench.stage import Stage
from tests.bench.usage import Cpu
from tests.bench.waiting import all_succeeded, quiet

BATCH_JOBS = 1000
BULK_LINKS = 4
SINGLE_LINKS = 64
OPEN_LINKS = 64
START_PER_S = 100
WARM_UP_JOBS = 1000
SEED = 20_26


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each."""

    jobs: int = 100_000
    single_s: float = 10.0
    start_s: float = 20.0
    delayed: int = 1000
    delay_s: float = 5.0
    idle_s: float = 10.0
    quiet_max_s: float = 120.0  # longest wait for quiet before the idle measure
    listed: int = 1_000_000  # ended jobs under the lists, and a tenth as many due
    pages: int = 100  # of each list
    overload_s: float = 20.0
    workflows: tuple[int, ...] = (1000, 10_000)  # jobs of one, in each shape
    join: int = 5000  # parents of one job
    price_jobs: int = 20_000  # of each turn
    rounds: int = 5  # of turns


QUICK = Scale(
    jobs=2000, single_s=0.5, start_s=0.5, delayed=100, delay_s=1.0, idle_s=0.5, quiet_max_s=0.0,
    listed=2000, pages=3, overload_s=0.5, workflows=(30,), join=50,
    price_jobs=2000, rounds=1,
)  # fmt: skip

Measure = Callable[[Stage, Scale], Awaitable[list[Figure]]]


async def warm_up(stage: Stage, queue: str = "bench-warm") -> None:
    """Not measured: connections are opened, statements prepared, modules imported."""
    body = _batch(queue, 0, WARM_UP_JOBS)
    single = stage.client.request("POST", "/v1/jobs", _job(queue, 0))
    async with stage.client.links(SINGLE_LINKS) as links:
        await Flood(links, iter([stage.client.request("POST", "/v1/jobs/batch", body)])).done
        await Flood(links, iter([single] * WARM_UP_JOBS)).done
    await all_succeeded(stage, queue, 2 * WARM_UP_JOBS)


async def bulk(stage: Stage, scale: Scale) -> list[Figure]:
    """Batches of 1,000 over 4 connections into a paused queue."""
    await stage.client.call("POST", "/v1/queues/bench-bulk/pause")
    requests = list(batches(stage.client, "bench-bulk", scale.jobs))
    async with stage.client.links(BULK_LINKS) as links:
        before = stage.usage.cpu()
        flood = Flood(links, iter(requests))
        await flood.done
        used = stage.usage.cpu() - before
    return [
        Figure("bulk", "rate", scale.jobs / used.wall, "jobs/s"),
        *_answer_times("bulk", flood.times_s),
        *_cpu_per_job("bulk", used, scale.jobs),
    ]


async def drain(stage: Stage, scale: Scale) -> list[Figure]:
    """From the resume of what `bulk` left until PostgreSQL has the last success on record."""
    before, resumed_at = stage.usage.cpu(), time.time()
    await stage.client.call("POST", "/v1/queues/bench-bulk/resume")
    await all_succeeded(stage, "bench-bulk", scale.jobs)
    used = stage.usage.cpu() - before
    await stage.ledger.started_once_each("bench-bulk", scale.jobs)
    took_s = await stage.ledger.finished_at("bench-bulk") - resumed_at
    return [
        Figure("drain", "rate", scale.jobs / took_s, "jobs/s"),
        *_cpu_per_job("drain", used, scale.jobs),
        Figure("drain", "memory of the server after", stage.usage.server_mib(), "MiB"),
    ]


async def single(stage: Stage, scale: Scale) -> list[Figure]:
    """One job a POST over 64 connections, while they run."""
    request = stage.client.request("POST", "/v1/jobs", _job("bench-single", 1))
    async with stage.client.links(SINGLE_LINKS) as links:
        before = stage.usage.cpu()
        flood = Flood(links, _for_seconds(request, scale.single_s))
        await flood.done
        used, answered_at = stage.usage.cpu() - before, time.time()
    count = len(flood.times_s)
    await all_succeeded(stage, "bench-single", count)
    await stage.ledger.started_once_each("bench-single", count)
    behind_s = await stage.ledger.finished_at("bench-single") - answered_at
    return [
        Figure("single", "rate", count / used.wall, "jobs/s"),
        *_answer_times("single", flood.times_s),
        Figure("single", "last answer to last success", behind_s * 1000, "ms"),
        *_cpu_per_job("single", used, count),
    ]


async def start(stage: Stage, scale: Scale) -> list[Figure]:
    """100 single POSTs a second, at random instants, whatever the answers do."""
    request = stage.client.request("POST", "/v1/jobs", _job("bench-start", 1))
    offsets_s = list(_poisson(START_PER_S, scale.start_s))
    async with stage.client.links(OPEN_LINKS) as links:
        flow = OpenLoop(links, request, offsets_s)
        await flow.done
    await all_succeeded(stage, "bench-start", len(offsets_s))
    await stage.ledger.started_once_each("bench-start", len(offsets_s))
    starts = await stage.ledger.starts("bench-start")
    return [
        *_spread("start", "ready to started", [one.late_ms for one in starts]),
        *_spread("start", "sent to started", _since_sent(flow.answers, starts)),
        *_spread("start", "sent to answered", [one.took_s * 1000 for one in flow.answers]),
    ]


async def late(stage: Stage, scale: Scale) -> list[Figure]:
    """Many delayed jobs that are due at the same instant."""
    body = _batch("bench-late", 0, scale.delayed, delay_s=scale.delay_s)
    await stage.client.call("POST", "/v1/jobs/batch", body)
    await asyncio.sleep(scale.delay_s + 0.5)  # not to look at the very moment
    await all_succeeded(stage, "bench-late", scale.delayed)
    await stage.ledger.started_once_each("bench-late", scale.delayed)
    starts = await stage.ledger.starts("bench-late")
    late_ms = [one.late_ms for one in starts]
    return [
        *_spread("late", "due to started", late_ms),
        Figure("late", "due to started, max", max(late_ms), "ms"),
    ]


async def idle(stage: Stage, scale: Scale) -> list[Figure]:
    """What it costs to wait for work, when the last work has been tidied up."""
    await quiet(stage, scale.quiet_max_s)
    before = stage.usage.cpu()
    time.sleep(scale.idle_s)  # noqa: ASYNC251 - nothing of ours may stir either
    used = stage.usage.cpu() - before
    return [
        Figure("idle", f"CPU of {name}", seconds / used.wall * 100, "% of a core")
        for name, seconds in _by_name(used)[:3]
    ]


async def memory(stage: Stage, _scale: Scale) -> list[Figure]:
    """What the server holds after all that."""
    return [Figure("memory", "server", stage.usage.server_mib(), "MiB")]


async def workflows(stage: Stage, scale: Scale) -> list[Figure]:
    """Chains, fans, diamonds, grids."""
    return await of_workflows.measure(stage, scale.workflows, scale.join)


async def lists(stage: Stage, scale: Scale) -> list[Figure]:
    """Pages of lists, a million ended jobs below them."""
    await listing.seed(stage, scale.listed)
    return await listing.measure(stage, scale.pages)


async def overload(stage: Stage, scale: Scale) -> list[Figure]:
    """Twice as many single submissions as can be taken."""
    return await crowds.overload(stage, "overload", scale.overload_s, 1)


async def overload_batches(stage: Stage, scale: Scale) -> list[Figure]:
    """The same in batches of 100."""
    return await crowds.overload(stage, "overload-batches", scale.overload_s, 100)


async def burst(stage: Stage, scale: Scale) -> list[Figure]:
    """All jobs at once, singles over 200 connections."""
    return await crowds.burst(stage, "burst", scale.jobs, 1)


async def burst_batches(stage: Stage, scale: Scale) -> list[Figure]:
    """The same in batches of 1,000."""
    return await crowds.burst(stage, "burst-batches", scale.jobs, BATCH_JOBS)


MEASURES: dict[str, Measure] = {
    "bulk": bulk,
    "drain": drain,
    "single": single,
    "start": start,
    "late": late,
    "workflows": workflows,
    "idle": idle,
    "memory": memory,
    "lists": lists,
    "overload": overload,
    "overload-batches": overload_batches,
    "burst": burst,
    "burst-batches": burst_batches,
}
NEEDS = {"drain": "bulk"}


async def measured(name: str, stage: Stage, scale: Scale) -> list[Figure]:
    """One measure, and what else the machine did meanwhile."""
    before = stage.usage.cpu()
    figures = await MEASURES[name](stage, scale)
    others_pct = (stage.usage.cpu() - before).others_pct
    return [replace(figure, others_pct=others_pct) for figure in figures]


def _job(queue: str, number: int) -> dict[str, object]:
    return {"kind": "echo", "queue": queue, "payload": {"i": number}}


def _batch(queue: str, first: int, count: int, **fields: object) -> dict[str, object]:
    return {"jobs": [{**_job(queue, first + i), **fields} for i in range(count)]}


def batches(client: Client, queue: str, count: int) -> Iterator[bytes]:
    """Requests that submit so many jobs."""
    for first in range(0, count, BATCH_JOBS):
        body = _batch(queue, first, min(BATCH_JOBS, count - first))
        yield client.request("POST", "/v1/jobs/batch", body)


def _for_seconds(request: bytes, seconds: float) -> Iterator[bytes]:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield request


def _poisson(per_s: float, seconds: float) -> Iterator[float]:
    """The same instants in every run."""
    source = random.Random(SEED)
    at = source.expovariate(per_s)
    while at < seconds:
        yield at
        at += source.expovariate(per_s)


def _since_sent(answers: Sequence[Answer], starts: Sequence[Start]) -> list[float]:
    """From the client's wish to the start, in ms: both clocks are this machine's."""
    started_at = {one.job_id: one.ready_at + one.late_ms / 1000 for one in starts}
    return [
        (started_at[orjson.loads(answer.body)["id"]] - answer.due_at) * 1000 for answer in answers
    ]


def _spread(measure: str, name: str, values_ms: Sequence[float]) -> list[Figure]:
    return [
        Figure(measure, f"{name}, p{percent}", percentile(values_ms, percent), "ms")
        for percent in (50, 99)
    ]


def _answer_times(measure: str, times_s: Sequence[float]) -> list[Figure]:
    return _spread(measure, "sent to answered", [time_s * 1000 for time_s in times_s])


def _cpu_per_job(measure: str, used: Cpu, jobs: int) -> list[Figure]:
    return [
        Figure(measure, f"CPU of {name}", seconds / jobs * 1e6, "µs/job")
        for name, seconds in _by_name(used)
    ]


def _by_name(used: Cpu) -> list[tuple[str, float]]:
    return [
        ("the server", used.server),
        ("PostgreSQL", used.postgres),
        ("Redis", used.redis),
        ("this client", used.client),
    ]
