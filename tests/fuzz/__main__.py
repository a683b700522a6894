"""`python -m tests.fuzz --requests 50000 --seed 7`: the long run, with servers of its own."""

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

import click

from tests.fuzz import campaign
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers


@click.command()
@click.option("--requests", default=50_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", type=int, help="Repeats the requests of a run.  [random]")
def main(requests: int, seed: int | None) -> None:
    """Sends mutated requests to a replica; the exit status is 1 when something was found."""
    chosen = secrets.randbits(32) if seed is None else seed
    click.echo(f"seed {chosen}", err=True)
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL may have to run as `nobody`
        servers = Servers(directory)
        servers.start()
        try:
            report = asyncio.run(_campaign(servers, directory, requests, chosen))
        finally:
            servers.stop()
    click.echo(str(report))
    for finding in report.findings:
        click.echo(f"- {finding}")
    sys.exit(1 if report.findings else 0)


async def _campaign(servers: Servers, directory: Path, requests: int, seed: int) -> campaign.Report:
    dsn = await servers.fresh_database()
    replica = ReplicaProcess(dsn, servers.fresh_redis(), directory, campaign.ENVIRON)
    try:
        replica.start()
        await replica.ready()
        return await campaign.run(replica, dsn, requests, seed)
    finally:
        replica.stop()


if __name__ == "__main__":
    main(prog_name="python -m tests.fuzz")
