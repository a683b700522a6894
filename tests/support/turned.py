"""Fixtures around an engine that a test turns by hand; a conftest.py imports what it wants.

One database a module, emptied for each test: a fresh one takes longer than most of the tests.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr

from penstock.settings import Settings
from tests.support.database import TABLES
from tests.support.servers import Servers
from tests.support.still import Still, changed, standing
from tests.support.wire import Wire, laid


@pytest.fixture(scope="module")
def database_of_the_module(servers: Servers) -> str:
    return asyncio.run(servers.fresh_database())


@pytest.fixture
async def dsn(database_of_the_module: str) -> str:
    """An empty database."""
    con = await asyncpg.connect(database_of_the_module)
    await con.execute(f"TRUNCATE {', '.join(TABLES)}")
    await con.close()
    return database_of_the_module


@pytest.fixture
def still_settings(replica_settings: Settings) -> Settings:
    """Few slots, so that a test can fill them, and short graces."""
    modules = (*replica_settings.handlers.modules, "tests.support.gates", "tests.support.fanning")
    worker = {"concurrency": 4, "threads": 2, "drain_grace_s": 0.1, "cancel_grace_s": 0.1}
    return changed(replica_settings, worker=worker, handlers={"modules": modules})


@pytest.fixture
async def still(still_settings: Settings, dsn: str, redis_url: str) -> AsyncIterator[Still]:
    async with standing(still_settings, dsn, redis_url) as one:
        yield one


@pytest.fixture
async def postgres_wire(servers: Servers) -> AsyncIterator[Wire]:
    async with laid(servers.postgres.port) as wire:
        yield wire


@pytest.fixture
async def redis_wire(servers: Servers) -> AsyncIterator[Wire]:
    async with laid(servers.redis.port) as wire:
        yield wire


@pytest.fixture
async def wired(
    still_settings: Settings,
    servers: Servers,
    dsn: str,
    redis_url: str,
    postgres_wire: Wire,
    redis_wire: Wire,
) -> AsyncIterator[Still]:
    """The same, its connections on wires."""
    dsn_there = dsn.replace(f":{servers.postgres.port}/", f":{postgres_wire.port}/")
    url_there = redis_url.replace(f":{servers.redis.port}/", f":{redis_wire.port}/")
    there = changed(
        still_settings,
        postgres={"dsn": SecretStr(dsn_there)},
        redis={"url": SecretStr(url_there)},
    )
    async with standing(there, dsn, redis_url) as one:
        yield one
