"""`python -m tests.bench.auditing`: what the self-audit costs with a million jobs.

On fresh servers, with the pruner's million old jobs and a tenth as many due ones, half of which
hold a unique key. A page is timed by itself; then a whole pass, without the rests between pages.
"""

import time

import asyncpg
import click

from penstock.cli.looping import run
from penstock.loops.auditor import _PAGE, _QUEUES, _ROWS, _SHARE
from penstock.store.audit import Audit
from penstock.store.migrate import migrate
from penstock.store.postgres import Limits, Postgres
from tests.bench.figures import percentile
from tests.bench.pruning import SEED, SEEDS
from tests.bench.stage import fresh_servers

DUE = (
    """
    CREATE TEMP TABLE due AS SELECT gen_random_uuid() AS id, n FROM generate_series(1, $1::int) n
    """,
    """
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                      on_lost, created_by, unique_key)
    SELECT id, 'due', 'echo', 5, '{"i":1}', now(), 5, 300, 'retry', 'bench',
           CASE WHEN n % 2 = 0 THEN n::text END FROM due
    """,
    """
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
    SELECT id, 'due', 'echo', n % 10, now(), 0, 0, 0 FROM due
    """,
    """
    INSERT INTO job_unique SELECT job_unique_id('due', n::text), id FROM due WHERE n % 2 = 0
    """,
)


@click.command()
@click.option("--old", default=1_000_000, help="Ended jobs.", show_default=True)
def main(old: int) -> None:
    """Measure the self-audit."""
    with fresh_servers(None) as servers:
        run(_measured(servers.postgres.dsn, old))


async def _measured(dsn: str, old: int) -> None:
    await migrate(dsn)
    con = await asyncpg.connect(dsn)
    await con.execute(SEED.replace("$1::int", str(old)))
    for sql in (*SEEDS, *(sql.replace("$1::int", str(old // 10)) for sql in DUE)):
        await con.execute(sql)
    await con.execute("INSERT INTO queues (queue) VALUES ('old'), ('due')")
    await con.execute("VACUUM ANALYZE")
    await con.close()
    postgres = Postgres(dsn, Limits())
    await postgres.open()
    audit = Audit(postgres)
    began = time.perf_counter()
    places, found = await _walked(audit)
    _show("places", places, found)
    _show("keys", *await _keys(audit))
    for name, look in (
        ("counts", audit.counts("", _QUEUES, _ROWS)),
        ("orphans", audit.orphans()),
        ("waiting", audit.waiting(60.0)),
    ):
        since = time.perf_counter()
        await look
        _show(name, [time.perf_counter() - since], 0)
    spent = time.perf_counter() - began
    click.echo(f"a pass: {spent:.2f} s of work, spread over {spent * _SHARE / 60:.0f} min")
    postgres.close()


async def _walked(audit: Audit) -> tuple[list[float], int]:
    after: bytes | None = bytes(16)
    spent, found = list[float](), 0
    while after is not None:
        since = time.perf_counter()
        page = await audit.places(after, _PAGE)
        spent.append(time.perf_counter() - since)
        after, found = page.next, found + sum(map(len, page.found.values()))
    return spent, found


async def _keys(audit: Audit) -> tuple[list[float], int]:
    after: bytes | None = bytes(16)
    spent, found = list[float](), 0
    while after is not None:
        since = time.perf_counter()
        page, keys = await audit.keys(after, _PAGE)
        spent.append(time.perf_counter() - since)
        after, found = page.next, found + len(keys)
    return spent, found


def _show(name: str, spent: list[float], found: int) -> None:
    median, worst = percentile(spent, 50) * 1000, max(spent) * 1000
    click.echo(
        f"{name}: {len(spent)} pages, median {median:.2f} ms, worst {worst:.1f} ms, found {found}"
    )


if __name__ == "__main__":
    main()
