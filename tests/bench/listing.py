"""Lists: how long a page takes for each filter, with a million ended jobs and a backlog.

The jobs are written by SQL, behind the server's back; the pages are asked for over HTTP, one after
the other, each going on where the one before ended.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import asyncpg
import orjson

from tests.bench.client import Client, Link
from tests.bench.figures import BenchError, Figure, percentile
from tests.bench.stage import Stage
from tests.support.api import token

DUE_SHARE = 10  # one due job for so many ended ones

# Ids of 2026, 10 ms apart; 20 queues and 8 kinds, half of all jobs with tags. Three jobs are of a
# rare queue, three of a rare kind, and one in 100,000 is dead; a fiftieth was cancelled.
SEED = """
CREATE TEMP TABLE seeds AS
SELECT n, (lpad(to_hex(1767225600000 + n * 10), 12, '0') || '7' || substr(md5(n::text), 1, 3)
           || '8' || substr(md5(n::text), 4, 15))::uuid AS id,
       CASE WHEN n % ($1 / 3) = 7 THEN 'rare' ELSE 'queue-' || n * 7919 % 20 END AS queue,
       CASE WHEN n % ($1 / 3) = 8 THEN 'rare' ELSE 'kind-' || n * 104729 % 9 END AS kind,
       CASE WHEN n % 100000 = 9 THEN 'dead' WHEN n % 50 = 3 THEN 'cancelled' ELSE 'succeeded' END
           AS state,
       CASE WHEN n % 2 = 0 THEN ARRAY['half', 'customer-' || n % 50000, 'tenth-' || n % 10] END
           AS tags
FROM generate_series(1::bigint, $1::bigint) n
"""
JOBS = """
INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s, on_lost,
                  tags, created_by)
SELECT id, queue, kind, 5, '{"a": "payload of a usual size, which is to say a small one"}', now(),
       5, 300, 'retry', tags, 'bench' FROM seeds ORDER BY n
"""
ENDED = """
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, result, finished_at)
SELECT id, queue, kind, state, 1, 0, 0, '{"ok": true}', now() FROM seeds ORDER BY n
"""
ATTEMPTS = """
INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
SELECT id, 1, '019b76da-a800-7000-8000-000000000000', now(), now(), state FROM seeds ORDER BY n
"""
COUNTS = """
INSERT INTO queue_counts (queue, state, at, delta)
SELECT queue, state, NULL, count(*) FROM seeds GROUP BY 1, 2
"""
QUEUES = "INSERT INTO queues (queue) SELECT DISTINCT queue FROM seeds UNION SELECT 'backlog'"
# A kind that nobody serves: they stay. Newer than all that ended, as a backlog is.
BACKLOG = """
WITH i AS MATERIALIZED (
    SELECT n, (lpad(to_hex(1780000000000 + n * 10), 12, '0') || '7' || substr(md5(n::text), 1, 3)
               || '8' || substr(md5(n::text), 4, 15))::uuid AS id
    FROM generate_series(1::bigint, $1::bigint) n
),
j AS (
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                      on_lost, created_by)
    SELECT id, 'backlog', 'nobodys', 5, '1', now(), 5, 300, 'retry', 'bench' FROM i ORDER BY n
)
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
SELECT id, 'backlog', 'nobodys', 5, now(), 0, 0, 0 FROM i ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class Listing:
    """`queues` are the globs of the caller, None for all."""

    name: str
    path: str
    queues: Sequence[str] | None = None


LISTINGS = (
    Listing("no filter", "/v1/jobs"),
    Listing("200 with payloads", "/v1/jobs?limit=200&include=payload,result"),
    Listing("queue", "/v1/jobs?queue=queue-3"),
    Listing("backlog", "/v1/jobs?queue=backlog"),
    Listing("rare queue", "/v1/jobs?queue=rare"),
    Listing("kind", "/v1/jobs?kind=kind-3"),
    Listing("rare kind", "/v1/jobs?kind=rare"),
    Listing("rare kind of a queue", "/v1/jobs?kind=rare&queue=queue-3"),
    Listing("nobody's kind", "/v1/jobs?kind=none"),
    Listing("succeeded", "/v1/jobs?state=succeeded"),
    Listing("cancelled", "/v1/jobs?state=cancelled"),
    Listing("dead", "/v1/jobs?state=dead"),
    Listing("dead of a queue", "/v1/jobs?state=dead&queue=queue-3"),
    Listing("dead or ready", "/v1/jobs?state=dead&state=ready"),
    Listing("running", "/v1/jobs?state=running"),
    Listing("ready of a kind", "/v1/jobs?state=ready&kind=kind-3"),
    Listing("half's tag", "/v1/jobs?tag=half"),
    Listing("a customer's tag", "/v1/jobs?tag=customer-40"),
    Listing("nobody's tag", "/v1/jobs?tag=none"),
    Listing("dead with half's tag", "/v1/jobs?tag=half&state=dead"),
    Listing("cancelled with half's tag", "/v1/jobs?tag=half&state=cancelled"),
    Listing("rare kind with half's tag", "/v1/jobs?tag=half&kind=rare"),
    Listing("old window", "/v1/jobs?created_before=2026-01-01T00:10:00Z"),
    Listing("old window, kind", "/v1/jobs?created_before=2026-01-01T00:10:00Z&kind=kind-3"),
    Listing("empty window", "/v1/jobs?created_before=2025-01-01T00:00:00Z&tag=half"),
    Listing("scope of some", "/v1/jobs", ("queue-1*",)),
    Listing("scope of nothing", "/v1/jobs", ("nothing-*",)),
    Listing("scope, rare kind", "/v1/jobs?kind=rare", ("queue-1*",)),
    Listing("queues", "/v1/queues"),
    Listing("workers", "/v1/workers"),
)


async def seed(stage: Stage, ended: int) -> None:
    """Writes the jobs, as if they had come and ended."""
    con = await asyncpg.connect(stage.ledger.dsn)
    try:
        await con.execute("SET synchronous_commit = off")
        await con.execute(SEED.replace("$1", str(ended)))
        for sql in (JOBS, ENDED, ATTEMPTS, COUNTS, QUEUES):
            await con.execute(sql)
        await con.execute(BACKLOG.replace("$1", str(ended // DUE_SHARE)))
        for sql in ("VACUUM ANALYZE", "CHECKPOINT"):  # as if it had been long ago
            await con.execute(sql)
    finally:
        await con.close()


async def measure(stage: Stage, times: int) -> list[Figure]:
    """p50 and p99 of the pages of each listing, and the worst of the p99s."""
    figures: list[Figure] = []
    for one in LISTINGS:
        client = Client(stage.client.url, token("viewer", queues=one.queues))
        async with client.links(1) as [link]:
            await _pages(client, link, one.path, 10)
            times_ms = await _pages(client, link, one.path, times)
        for percent in (50, 99):
            value = percentile(times_ms, percent)
            figures.append(Figure("lists", f"{one.name}, p{percent}", value, "ms"))
    worst = max(figure.value for figure in figures if figure.name.endswith("p99"))
    return [Figure("lists", "worst p99 of a filter", worst, "ms"), *figures]


async def _pages(client: Client, link: Link, path: str, times: int) -> list[float]:
    """Milliseconds for each of so many pages; from the start again when there are no more."""
    times_ms: list[float] = []
    target = path
    for _ in range(times):
        began = time.perf_counter()
        status, body = await client.ask(link, "GET", target)
        times_ms.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise BenchError(f"GET {target} answered {status}: {body[:500]!r}")
        target = next(_following(path, body), path)
    return times_ms


def _following(path: str, body: bytes) -> Iterator[str]:
    cursor = orjson.loads(body)["next_cursor"]
    if cursor is not None:
        yield f"{path}{'&' if '?' in path else '?'}cursor={cursor}"
