"""Each module has a PostgreSQL and a Redis of its own, for its tests break them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.scene import Scene, staged
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
    """No replicas yet; their connections are their own."""
    async with staged(servers, dsn, workplace) as one:
        yield one


@pytest.fixture
async def proxied_scene(
    servers: Servers, dsn: str, redis_url: str, workplace: Path
) -> AsyncIterator[Scene]:
    """No replicas yet; each reaches each server through a fault proxy."""
    async with staged(servers, dsn, workplace, proxied=True) as one:
        yield one
