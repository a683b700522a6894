"""What is measured: one replica with default settings, and servers of its own, all fresh."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.dev import EmbeddedPostgres, EmbeddedRedis
from penstock.store.migrate import migrate
from tests.bench.client import Client
from tests.bench.figures import BenchError
from tests.bench.ledger import Ledger
from tests.bench.usage import Usage
from tests.support.api import token
from tests.support.replica import ReplicaProcess

# What a replica of the tests gets beyond the defaults is taken back, but for the sample kinds.
ENVIRON = {
    "PENSTOCK_ENV": "production",
    "PENSTOCK_HANDLERS__MODULES": '["penstock.handlers.samples"]',
    "PENSTOCK_EGRESS__ALLOW": "[]",
}
SETTINGS = "defaults of production; handlers.modules = penstock.handlers.samples"


@dataclass(frozen=True, slots=True)
class Servers:
    directory: Path
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis


@dataclass(frozen=True, slots=True)
class Stage:
    """A running replica, and all that looks at it."""

    client: Client
    ledger: Ledger
    usage: Usage


@contextmanager
def fresh_servers(parent: Path | None) -> Iterator[Servers]:
    """PostgreSQL and Redis, in a directory that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=parent) as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL may have to run as `nobody`
        with EmbeddedPostgres(directory) as postgres, EmbeddedRedis(directory) as redis:
            yield Servers(directory, postgres, redis)


@asynccontextmanager
async def serving(servers: Servers, environ: Mapping[str, str] = ENVIRON) -> AsyncIterator[Stage]:
    """`penstock serve` on these servers; it must also stop in good order."""
    dsn = servers.postgres.dsn
    await migrate(dsn)
    replica = ReplicaProcess(dsn, servers.redis.url, servers.directory, environ)
    try:
        replica.start()
        await replica.ready()
        usage = Usage(replica.pid, servers.postgres.pid, servers.redis.pid)
        yield Stage(Client(replica.url, token()), Ledger(dsn), usage)
        replica.terminate()
        if status := replica.wait():
            raise BenchError(f"the server ended with {status}")
    except BaseException as error:
        error.add_note(f"the server's last words:\n{replica.last_words()}")
        raise
    finally:
        replica.stop()
