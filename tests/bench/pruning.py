"""`python -m tests.bench.pruning`: how fast old jobs go, and what that costs jobs that run.

Three parts, each on fresh servers: the pruner's statement by itself; a drain with nothing to prune;
the same drain while the server's own pruner works off a million old jobs.
"""

import asyncio
import time

import asyncpg
import click

from penstock.cli.looping import run
from penstock.domain.job import State
from penstock.store.migrate import migrate
from penstock.store.postgres import Limits, Postgres
from penstock.store.retention import Retention
from penstock.store.rows import EPOCH
from tests.bench.figures import BenchError, percentile
from tests.bench.measures import Scale, bulk, drain, warm_up
from tests.bench.stage import Servers, fresh_servers, serving

DAY_S = 86_400.0
STEP = 1000
# As the engine writes them: a tenth has log lines, a hundredth is dead, all ended 8 days ago.
SEED = """
CREATE TEMP TABLE old AS
SELECT gen_random_uuid() AS id, n, now() - interval '8 days' + n / 500 * interval '1 ms' AS at
FROM generate_series(1, $1::int) n;
"""
SEEDS = (
    """
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                      on_lost, created_by)
    SELECT id, 'old', 'echo', 5, '{"i":1}', at, 5, 300, 'retry', 'bench' FROM old ORDER BY n
    """,
    """
    INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
    SELECT id, 1, gen_random_uuid(), at, at, 'succeeded' FROM old ORDER BY n
    """,
    """
    INSERT INTO job_logs SELECT id, 1, 1, at, 'info', 'a line of it' FROM old WHERE n % 10 = 0
    """,
    """
    INSERT INTO queue_counts SELECT 'old', 'succeeded', NULL, count(*) FROM old
    """,
    """
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, result,
                           finished_at)
    SELECT id, 'old', 'echo', 'succeeded', 1, 0, 0, '{"i":1}', at FROM old ORDER BY n
    """,
)


@click.command()
@click.option("--old", default=1_000_000, help="Old jobs.", show_default=True)
@click.option("--jobs", default=60_000, help="Jobs of the drain.", show_default=True)
def main(old: int, jobs: int) -> None:
    """Measure the pruner."""
    with fresh_servers(None) as servers:
        run(_statement(servers, old))
    for count in (0, old):
        with fresh_servers(None) as servers:
            run(_beside_a_drain(servers, count, jobs))


async def _statement(servers: Servers, old: int) -> None:
    """One step after the other, without a rest."""
    await migrate(servers.postgres.dsn)
    await _seed(servers.postgres.dsn, old)
    postgres = Postgres(servers.postgres.dsn, Limits())
    await postgres.open()
    retention, since, times_s = Retention(postgres), EPOCH, list[float]()
    while True:
        began = time.perf_counter()
        pruned = await retention.prune_ended(State.SUCCEEDED, 7 * DAY_S, since, STEP)
        if not pruned.count:
            break
        times_s.append(time.perf_counter() - began)
        since = pruned.last or since
    postgres.close()
    click.echo(
        f"alone: {old} jobs in steps of {STEP}: {old / sum(times_s):,.0f} jobs/s, a step "
        + ", ".join(f"p{p} {percentile(times_s, p) * 1000:.1f} ms" for p in (50, 99, 100))
    )


async def _beside_a_drain(servers: Servers, old: int, jobs: int) -> None:
    scale, dsn = Scale(jobs=jobs), servers.postgres.dsn
    async with serving(servers) as stage:
        await warm_up(stage)
        await bulk(stage, scale)
        if old:
            await _seed(dsn, old)
            await _begun(dsn, old)
        before, began = await _count(dsn), time.perf_counter()
        figures = await drain(stage, scale)
        took_s = time.perf_counter() - began
        gone = before - await _count(dsn)
    told = ", ".join(f"{one.name} {one.value:,.1f} {one.unit}" for one in figures)
    click.echo(f"drain beside {gone / took_s:,.0f} pruned/s: {told}")


async def _seed(dsn: str, old: int) -> None:
    con = await asyncpg.connect(dsn)
    async with con.transaction():
        await con.execute(SEED.replace("$1::int", str(old)))
        for sql in SEEDS:
            await con.execute(sql)
    await con.close()


async def _begun(dsn: str, old: int) -> None:
    """Returns when the server's pruner is at work at full steps."""
    until = time.perf_counter() + 60
    while await _count(dsn) > old * 0.99:
        if time.perf_counter() > until:
            raise BenchError("nothing is pruned")
        await asyncio.sleep(0.1)


async def _count(dsn: str) -> int:
    con = await asyncpg.connect(dsn)
    count = await con.fetchval("SELECT count(*) FROM job_ended WHERE queue = 'old'")
    await con.close()
    return int(count)


if __name__ == "__main__":
    main()
