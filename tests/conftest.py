"""Fixtures that tests of all heights share."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from penstock import settings
from penstock.server import Replica, running
from tests.support.api import Api
from tests.support.parameter_store import ParameterStore
from tests.support.replica import SECRET
from tests.support.servers import Servers

# What lands must not hang on what was drawn, nor on how busy the machine was. To look for more:
# HYPOTHESIS_PROFILE=default make test
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# What measures time, or breaks and kills for minutes, has the machine to itself: `make test` runs
# the others first, some of them side by side, and then these.
ALONE = (
    "bench/",
    "chaos/",
    "properties/",
    "egress/test_client.py",
    "api/test_stalls.py",
    "store/test_hot_statements.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(here)).startswith(ALONE):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL and Redis for the whole run."""
    both = Servers(tmp_path_factory.mktemp("servers"))
    both.start()
    yield both
    both.stop()


@pytest.fixture(scope="session")
def parameter_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParameterStore]:
    """AWS' Parameter Store over HTTP for the whole run; each test has a path of its own there."""
    with ParameterStore(tmp_path_factory.mktemp("parameters")) as store:
        yield store


@pytest.fixture
async def dsn(servers: Servers) -> str:
    """A fresh, migrated database."""
    return await servers.fresh_database()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An empty Redis."""
    return servers.fresh_redis()


@pytest.fixture
def replica_settings(dsn: str, redis_url: str) -> settings.Settings:
    """Settings of a replica in the test's own event loop, on any free port."""
    return settings.load(
        {
            "PENSTOCK_ENV": "test",
            "PENSTOCK_HTTP__PORT": "0",
            "PENSTOCK_POSTGRES__DSN": dsn,
            "PENSTOCK_REDIS__URL": redis_url,
            "PENSTOCK_AUTH__JWT_SECRET": SECRET,
            "PENSTOCK_HANDLERS__MODULES": '["penstock.handlers.samples", "tests.support.kinds"]',
            "PENSTOCK_EGRESS__ALLOW": '["127.0.0.0/8"]',
        }
    )


@pytest.fixture
async def replica(replica_settings: settings.Settings) -> AsyncIterator[Replica]:
    """A whole replica in the test's own event loop."""
    async with running(replica_settings) as one:
        yield one


@pytest.fixture
async def api(replica: Replica) -> AsyncIterator[Api]:
    """An admin of that replica."""
    async with Api(replica.url) as caller:
        yield caller


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A directory for logs of processes."""
    return tmp_path
