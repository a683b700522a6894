"""Each module has a PostgreSQL and a Redis of its own, for its tests break them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import checker
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.load import Load
from tests.support.scene import Scene
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    both = Servers(tmp_path_factory.mktemp("servers"))
    both.start()
    yield both
    both.stop()


@pytest.fixture
async def scene(
    servers: Servers, dsn: str, redis_url: str, workplace: Path
) -> AsyncIterator[Scene]:
    """No replicas yet. Heals the servers afterwards, however the test went."""
    con = await asyncpg.connect(dsn)
    await checker.keep_trail(con)
    await con.close()
    fleet = Fleet(dsn, redis_url, workplace)
    async with Api("") as api:
        yield Scene(servers, dsn, fleet, Load(api))
    fleet.stop()
    for server in (servers.postgres, servers.redis):
        server.resume()
        server.start()
