"""One database a module, emptied for each test."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support import database
from tests.support.database import Database
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def dsn_of_the_module(servers: Servers) -> str:
    return asyncio.run(servers.fresh_database())


@pytest.fixture
async def db(dsn_of_the_module: str) -> AsyncIterator[Database]:
    async with database.opened(dsn_of_the_module) as one:
        await one.empty()
        yield one
