"""`python -m tests.schema`: schemathesis over the whole document, against servers of its own.

The exit status is 0 when no check failed and the replica logged no fault of ours.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import click

from penstock.cli.looping import run
from tests.schema.runner import examined
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers


@click.command()
@click.option("--max-examples", default=300, type=click.IntRange(min=1), help="Per operation.")
@click.option("--seed", type=int, help="To repeat a run.  [random]")
def main(max_examples: int, seed: int | None) -> None:
    """Hold a live server against its own document."""
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    click.echo(f"seed {seed}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        servers = Servers(directory)
        servers.start()
        try:
            replica = ReplicaProcess(
                run(servers.fresh_database()),
                servers.fresh_redis(),
                directory,
                {"PENSTOCK_QUEUE__COUNT_MAX": "1000000"},
            )
            replica.start()
            run(replica.ready())
            began = time.monotonic()
            found = examined(replica.url, directory, max_examples=max_examples, seed=seed)
            click.echo(found.text)
            faults = replica.log_file.read_text().count("request_failed")
            click.echo(f"{found.cases} cases in {time.monotonic() - began:.0f} s, seed {seed}")
            click.echo(f"faults of ours in the log: {faults}")
            replica.stop()
        finally:
            servers.stop()
    sys.exit(0 if found.passed and not faults else 1)


if __name__ == "__main__":
    main()
